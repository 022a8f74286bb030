// What requests that share a server gain and cost each other, asked of a running server over gRPC: pictures
// together against one by one, answers together against one, tokens of an answer among pictures. Or, with
// --guarded_server, what snapshots, TLS, tokens, traces and metrics cost a step. Prints one table of ratios;
// both sides of each are measured in turn.

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "bench/guard_overhead.h"
#include "common/status_macros.h"
#include "lancet/v1/lancet.grpc.pb.h"

ABSL_FLAG(std::string, server, "127.0.0.1:50051", "a server that does nothing else");
ABSL_FLAG(std::string, picture, "models/demo/expected/question_05.png", "what the answers are about");
ABSL_FLAG(std::string, question, "Describe the picture.", "a question with a long answer");
ABSL_FLAG(int, tokens, 64, "tokens of an answer at most");
ABSL_FLAG(std::vector<std::string>, sides, std::vector<std::string>({"64", "256"}),
          "sides of the square pictures");
ABSL_FLAG(int, steps, 10, "denoise steps of a picture");
ABSL_FLAG(int, pictures, 4, "pictures at the same time");
ABSL_FLAG(int, answers, 8, "answers at the same time");
ABSL_FLAG(int, load_side, 64, "side of the two pictures that are drawn while an answer is timed");
ABSL_FLAG(int, repetitions, 3, "rounds to take medians of");

ABSL_FLAG(std::string, guarded_server, "",
          "another server of the same model on this machine, with snapshots, TLS, tokens and metrics: "
          "measures what these "
          "cost a step of pictures of the first of --sides, and nothing else");
ABSL_FLAG(std::string, guarded_ca, "", "roots for its certificate");
ABSL_FLAG(std::string, guarded_name, "localhost", "the name in its certificate");
ABSL_FLAG(std::string, guarded_token_file, "", "a token that it knows");
ABSL_FLAG(std::string, guarded_metrics, "", "host:port of its --metrics_listen");
ABSL_FLAG(std::vector<std::string>, pids, {}, "of coordinator and ranks of --server, for --guarded_server");
ABSL_FLAG(std::vector<std::string>, guarded_pids, {}, "likewise of --guarded_server");

namespace lancet {
namespace {

// The deltas of an answer that were counted are too few for a rate below this.
constexpr int kLeastTokens = 4;
// More than any answer outlasts.
constexpr int kLoadSteps = 1000;

double Quantile(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  return values[std::lround(q * static_cast<double>(values.size() - 1))];
}

double Median(std::vector<double> values) { return Quantile(std::move(values), 0.5); }

absl::Status FromGrpc(const grpc::Status& status) {
  return {static_cast<absl::StatusCode>(status.error_code()), status.error_message()};
}

struct Stubs {
  std::unique_ptr<v1::ImageService::Stub> image;
  std::unique_ptr<v1::TextService::Stub> text;
};

absl::Status Draw(const Stubs& stubs, int side, int steps, uint64_t seed, grpc::ClientContext& context,
                  const std::function<void(int)>& on_step) {
  v1::GenerateImageRequest request;
  request.set_prompt("a red apple next to a cup of coffee");
  request.set_width(side);
  request.set_height(side);
  request.set_num_inference_steps(steps);
  request.set_seed(seed);
  const auto reader = stubs.image->GenerateImage(&context, request);
  v1::GenerateImageResponse event;
  while (reader->Read(&event)) {
    if (event.has_progress() && on_step) on_step(event.progress().step());
  }
  return FromGrpc(reader->Finish());
}

struct Delta {
  absl::Time time;
  int tokens = 0;  // of the answer so far
};

absl::StatusOr<std::vector<Delta>> Ask(const Stubs& stubs, const std::string& image,
                                       const std::function<void(int)>& on_delta) {
  v1::DescribeImageRequest request;
  request.add_images(image);
  request.set_question(absl::GetFlag(FLAGS_question));
  request.set_max_new_tokens(absl::GetFlag(FLAGS_tokens));
  grpc::ClientContext context;
  const auto reader = stubs.text->DescribeImage(&context, request);
  v1::DescribeImageResponse event;
  std::vector<Delta> deltas;
  while (reader->Read(&event)) {
    if (!event.has_delta()) continue;
    deltas.push_back({absl::Now(), event.delta().token_count()});
    if (on_delta) on_delta(event.delta().token_count());
  }
  LANCET_RETURN_IF_ERROR(FromGrpc(reader->Finish()));
  return deltas;
}

// All of `calls` at once; the first error.
absl::Status Together(const std::vector<std::function<absl::Status()>>& calls) {
  std::vector<absl::Status> statuses(calls.size());
  std::vector<std::thread> threads;
  for (size_t i = 0; i < calls.size(); ++i) threads.emplace_back([&, i] { statuses[i] = calls[i](); });
  for (std::thread& thread : threads) thread.join();
  for (const absl::Status& status : statuses) LANCET_RETURN_IF_ERROR(status);
  return absl::OkStatus();
}

// Seconds for so many pictures, at the same time or one after the other.
absl::StatusOr<double> DrawSeconds(const Stubs& stubs, int side, int count, bool together) {
  std::vector<std::function<absl::Status()>> calls;
  for (int i = 0; i < count; ++i) {
    calls.emplace_back([&stubs, side, i] {
      grpc::ClientContext context;
      return Draw(stubs, side, absl::GetFlag(FLAGS_steps), i, context, nullptr);
    });
  }
  const absl::Time start = absl::Now();
  if (together) {
    LANCET_RETURN_IF_ERROR(Together(calls));
  } else {
    for (const auto& call : calls) LANCET_RETURN_IF_ERROR(call());
  }
  return absl::ToDoubleSeconds(absl::Now() - start);
}

// A step of a lone picture with a preview of each: as the engine counts it, and as the client sees one step
// come after another.
struct StepTimes {
  double engine_s = 0;
  double client_s = 0;
};

absl::StatusOr<StepTimes> ServedSteps(const Stubs& stubs, int side) {
  const int steps = absl::GetFlag(FLAGS_steps);
  v1::GenerateImageRequest request;
  request.set_prompt("a red apple next to a cup of coffee");
  request.set_width(side);
  request.set_height(side);
  request.set_num_inference_steps(steps);
  // Guidance in every step, so that all cost the same.
  request.mutable_guidance_interval()->set_start(0);
  request.mutable_guidance_interval()->set_end(1);
  request.mutable_preview()->set_every_n_steps(1);
  grpc::ClientContext context;
  const auto reader = stubs.image->GenerateImage(&context, request);
  v1::GenerateImageResponse event;
  absl::Time first;
  StepTimes times;
  while (reader->Read(&event)) {
    if (event.has_progress() && event.progress().step() == 1) first = absl::Now();
    if (event.has_progress() && event.progress().step() == steps) {
      times.client_s = absl::ToDoubleSeconds(absl::Now() - first) / (steps - 1);
    }
    if (!event.has_result()) continue;
    const auto& denoise = event.result().timings().denoise();
    times.engine_s =
        (static_cast<double>(denoise.seconds()) + 1e-9 * static_cast<double>(denoise.nanos())) / steps;
  }
  LANCET_RETURN_IF_ERROR(FromGrpc(reader->Finish()));
  return times;
}

absl::Status PrintServedSteps(const Stubs& stubs, int side) {
  if (absl::GetFlag(FLAGS_steps) < 2) return absl::InvalidArgumentError("--steps is below 2");
  std::vector<double> engine, client, ratios;
  for (int i = 0; i < absl::GetFlag(FLAGS_repetitions); ++i) {
    LANCET_ASSIGN_OR_RETURN(const StepTimes times, ServedSteps(stubs, side));
    engine.push_back(times.engine_s * 1e3);
    client.push_back(times.client_s * 1e3);
    ratios.push_back(times.client_s / times.engine_s);
  }
  std::cout
      << absl::StrFormat(
             "| a step of %d x %d: in the engine, at the client with previews | %.2f ms | %.2f ms | %.3f |\n",
             side, side, Median(engine), Median(client), Median(ratios))
      << std::flush;
  return absl::OkStatus();
}

// Tokens a second of so many answers, over the time in which all of them are being written.
absl::StatusOr<double> TokenRate(const Stubs& stubs, const std::string& image, int count) {
  std::vector<std::vector<Delta>> answers(count);
  std::vector<std::function<absl::Status()>> calls;
  for (std::vector<Delta>& answer : answers) {
    calls.emplace_back([&stubs, &image, &answer] {
      LANCET_ASSIGN_OR_RETURN(answer, Ask(stubs, image, nullptr));
      if (answer.empty()) return absl::FailedPreconditionError("an answer without text");
      return absl::OkStatus();
    });
  }
  LANCET_RETURN_IF_ERROR(Together(calls));
  absl::Time begin = absl::InfinitePast();
  absl::Time end = absl::InfiniteFuture();
  for (const std::vector<Delta>& answer : answers) {
    begin = std::max(begin, answer.front().time);
    end = std::min(end, answer.back().time);
  }
  int tokens = 0;
  for (const std::vector<Delta>& answer : answers) {
    int before = answer.front().tokens;
    int after = before;
    for (const Delta& delta : answer) {
      if (delta.time <= begin) before = delta.tokens;
      if (delta.time <= end) after = delta.tokens;
    }
    tokens += after - before;
  }
  if (begin >= end || tokens < kLeastTokens * count) {
    return absl::FailedPreconditionError("the answers are too short to be written at the same time");
  }
  return tokens / absl::ToDoubleSeconds(end - begin);
}

// Two pictures on their way for as long as the object lives.
class PictureLoad {
 public:
  PictureLoad(const Stubs& stubs, int side) {
    for (int i = 0; i < 2; ++i) {
      threads_[i] = std::thread([this, &stubs, side, i] {
        const auto on_step = [this, i](int step) {
          const std::lock_guard<std::mutex> lock(mu_);
          steps_[i] = step;
        };
        const absl::Status drawn = Draw(stubs, side, kLoadSteps, i, contexts_[i], on_step);
        const std::lock_guard<std::mutex> lock(mu_);
        ended_ |= drawn.code() != absl::StatusCode::kCancelled;
      });
    }
  }
  ~PictureLoad() {
    for (grpc::ClientContext& context : contexts_) context.TryCancel();
    for (std::thread& thread : threads_) thread.join();
  }

  // Steps of the one that is further. An iteration has one step of each, so this counts iterations.
  int Steps() const {
    const std::lock_guard<std::mutex> lock(mu_);
    return std::max(steps_[0], steps_[1]);
  }
  bool BothRun() const {
    const std::lock_guard<std::mutex> lock(mu_);
    return steps_[0] > 0 && steps_[1] > 0 && !ended_;
  }
  bool Ended() const {
    const std::lock_guard<std::mutex> lock(mu_);
    return ended_;
  }

 private:
  mutable std::mutex mu_;
  int steps_[2] = {0, 0};  // guarded by mu_
  bool ended_ = false;     // guarded by mu_
  grpc::ClientContext contexts_[2];
  std::thread threads_[2];
};

// Iterations that tokens of an answer took among two pictures, each token once. The two streams are read side
// by side, so a count may be one off.
absl::Status TokenIterations(const Stubs& stubs, const std::string& image, std::vector<double>& iterations) {
  PictureLoad load(stubs, absl::GetFlag(FLAGS_load_side));
  while (!load.BothRun()) {
    if (load.Ended()) return absl::FailedPreconditionError("the pictures ended before the answer began");
    absl::SleepFor(absl::Milliseconds(5));
  }
  int last_tokens = 0;
  int last_step = 0;
  const auto on_delta = [&](int tokens) {
    const int step = load.Steps();
    for (int i = last_tokens; last_tokens > 0 && i < tokens; ++i) {
      iterations.push_back(static_cast<double>(step - last_step) / (tokens - last_tokens));
    }
    last_tokens = tokens;
    last_step = step;
  };
  LANCET_RETURN_IF_ERROR(Ask(stubs, image, on_delta).status());
  if (!load.BothRun()) return absl::FailedPreconditionError("the pictures ended before the answer did");
  return absl::OkStatus();
}

absl::StatusOr<std::vector<pid_t>> ParsePids(const std::string& flag, const std::vector<std::string>& texts) {
  std::vector<pid_t> pids;
  for (const std::string& text : texts) {
    if (!absl::SimpleAtoi(text, &pids.emplace_back()) || pids.back() <= 0) {
      return absl::InvalidArgumentError(absl::StrCat("--", flag, " has '", text, "'; expected a process id"));
    }
  }
  if (pids.empty()) return absl::InvalidArgumentError(absl::StrCat("--", flag, " is empty"));
  return pids;
}

void PrintCost(absl::string_view what, const GuardCost& cost) {
  std::cout << absl::StrFormat("| %s | %.3f ms | %.3f ms | %.4f (%.4f, %.4f) |\n", what, cost.plain_ms,
                               cost.guarded_ms, cost.ratio, cost.ratio_p25, cost.ratio_p75);
}

absl::Status RunOverhead() {
  GuardOverheadOptions options;
  options.plain.server = absl::GetFlag(FLAGS_server);
  options.guarded = {.server = absl::GetFlag(FLAGS_guarded_server),
                     .tls = true,
                     .tls_files = {"", "", absl::GetFlag(FLAGS_guarded_ca)},
                     .tls_server_name = absl::GetFlag(FLAGS_guarded_name)};
  LANCET_ASSIGN_OR_RETURN(options.guarded.token, ReadTokenFile(absl::GetFlag(FLAGS_guarded_token_file)));
  options.metrics = absl::GetFlag(FLAGS_guarded_metrics);
  LANCET_ASSIGN_OR_RETURN(options.plain_pids, ParsePids("pids", absl::GetFlag(FLAGS_pids)));
  LANCET_ASSIGN_OR_RETURN(options.guarded_pids, ParsePids("guarded_pids", absl::GetFlag(FLAGS_guarded_pids)));
  options.steps = absl::GetFlag(FLAGS_steps);
  options.rounds = absl::GetFlag(FLAGS_repetitions);
  if (absl::GetFlag(FLAGS_sides).empty() || !absl::SimpleAtoi(absl::GetFlag(FLAGS_sides)[0], &options.side)) {
    return absl::InvalidArgumentError("--sides names no side");
  }
  if (options.rounds < 1 || options.steps < 2) {
    return absl::InvalidArgumentError("--repetitions is below 1 or --steps below 2");
  }
  LANCET_ASSIGN_OR_RETURN(const GuardOverhead overhead, MeasureGuardOverhead(options));
  std::cout << absl::StrFormat(
                   "Snapshots, TLS, token, trace and metrics at every step: a step of %d x %d\n\n",
                   options.side, options.side)
            << "| | without | with | ratio (p25, p75) |\n|---|---|---|---|\n";
  PrintCost("processor time of the server", overhead.processor);
  PrintCost("time", overhead.wall);
  return absl::OkStatus();
}

absl::Status Run() {
  if (!absl::GetFlag(FLAGS_guarded_server).empty()) return RunOverhead();
  std::ifstream file(absl::GetFlag(FLAGS_picture), std::ios::binary);
  if (!file)
    return absl::NotFoundError(absl::StrCat("--picture: cannot read ", absl::GetFlag(FLAGS_picture)));
  const std::string image{std::istreambuf_iterator<char>(file), {}};
  const int repetitions = absl::GetFlag(FLAGS_repetitions);
  const int pictures = absl::GetFlag(FLAGS_pictures);
  const int answers = absl::GetFlag(FLAGS_answers);
  for (const int count : {repetitions, pictures, answers}) {
    if (count < 1 || count > 100) {
      return absl::InvalidArgumentError("--repetitions, --pictures or --answers is not from 1 to 100");
    }
  }
  const auto channel = grpc::CreateChannel(absl::GetFlag(FLAGS_server), grpc::InsecureChannelCredentials());
  const Stubs stubs = {v1::ImageService::NewStub(channel), v1::TextService::NewStub(channel)};
  grpc::ClientContext context;
  v1::GetModelInfoResponse info;
  LANCET_RETURN_IF_ERROR(FromGrpc(stubs.image->GetModelInfo(&context, {}, &info)));
  for (const v1::GroupInfo& group : info.groups()) {
    std::cout << info.name() << ", " << group.world_size() << " ranks, " << group.device() << "\n\n";
  }
  std::cout << "| | one by one | together | ratio |\n|---|---|---|---|\n";

  for (const std::string& text : absl::GetFlag(FLAGS_sides)) {
    int side = 0;
    if (!absl::SimpleAtoi(text, &side)) return absl::InvalidArgumentError(absl::StrCat("--sides ", text));
    std::vector<double> alone, together, ratios;
    for (int i = 0; i < repetitions; ++i) {
      LANCET_ASSIGN_OR_RETURN(const double a, DrawSeconds(stubs, side, pictures, false));
      LANCET_ASSIGN_OR_RETURN(const double b, DrawSeconds(stubs, side, pictures, true));
      alone.push_back(pictures / a);
      together.push_back(pictures / b);
      ratios.push_back(a / b);
    }
    std::cout << absl::StrFormat("| %d pictures of %d x %d, %d steps | %.3f /s | %.3f /s | %.2f |\n",
                                 pictures, side, side, absl::GetFlag(FLAGS_steps), Median(alone),
                                 Median(together), Median(ratios))
              << std::flush;
    LANCET_RETURN_IF_ERROR(PrintServedSteps(stubs, side));
  }

  std::vector<double> alone, together, ratios;
  for (int i = 0; i < repetitions; ++i) {
    LANCET_ASSIGN_OR_RETURN(const double a, TokenRate(stubs, image, 1));
    LANCET_ASSIGN_OR_RETURN(const double b, TokenRate(stubs, image, answers));
    alone.push_back(a);
    together.push_back(b);
    ratios.push_back(b / a);
  }
  std::cout << absl::StrFormat("| %d answers | %.1f tokens/s | %.1f tokens/s | %.2f |\n", answers,
                               Median(alone), Median(together), Median(ratios))
            << std::flush;

  std::vector<double> iterations;
  for (int i = 0; i < repetitions; ++i) {
    LANCET_RETURN_IF_ERROR(TokenIterations(stubs, image, iterations));
  }
  if (iterations.empty()) return absl::FailedPreconditionError("the answers are too short to be timed");
  std::cout << absl::StrFormat(
      "| iterations a token, among 2 pictures of %d x %d | | p50 %.1f, p99 %.1f | |\n",
      absl::GetFlag(FLAGS_load_side), absl::GetFlag(FLAGS_load_side), Median(iterations),
      Quantile(iterations, 0.99));
  return absl::OkStatus();
}

}  // namespace
}  // namespace lancet

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("serving_bench --server 127.0.0.1:50051 [--sides 64,256] [--steps N]");
  absl::ParseCommandLine(argc, argv);
  if (const absl::Status status = lancet::Run(); !status.ok()) {
    std::cerr << "serving_bench: " << status << "\n";
    return 1;
  }
  return 0;
}
