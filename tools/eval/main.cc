// lancet-eval: what arithmetics and quantisations do to a model's pictures, edits and answers.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/checkpoint.h"
#include "common/checkpoint_flags.h"
#include "common/program_flags.h"
#include "common/quote.h"
#include "common/status_macros.h"
#include "coordinator/request/image_codec.h"
#include "tools/eval/evaluation.h"
#include "tools/eval/scene_judge.h"
#include "tools/requests/rank_group.h"
#include "tools/requests/request_set.h"

ABSL_FLAG(
    std::string, requests, "",
    "prompts, edits and questions: a folder or a file (tools/requests/request_set.h); default: expected/ in "
    "--model_dir");
ABSL_FLAG(std::string, judge, "",
          "names and sprites of a model that draws scenes of them (tools/eval/scene_judge.h), such as "
          "tools/eval/demo_judge.json; default: no judge");
ABSL_FLAG(std::vector<std::string>, bf16_linears, {},
          "Linears that stay in w4a16 in every mode, as in lancet-worker");
ABSL_FLAG(std::string, activation_factors, "", "as in lancet-worker, for w4a4");
ABSL_FLAG(std::string, device, "cpu", "cpu, or cuda in builds with it; the CPU emulates the modes of a GPU");
ABSL_FLAG(std::string, output_dir, "", "write every picture there: LINE_KIND_NUMBER.png");
ABSL_FLAG(int, ranks, 1, "ranks to split the model over, as threads, 1 to 64");
ABSL_FLAG(int, threads, 1, "compute threads of a rank, 1 to 1024");
ABSL_FLAG(int, most, 1000, "at most so many pictures, edits and questions each, 1 to 1000");
ABSL_FLAG(int, steps, 30, "denoise steps of a picture, 1 to 1000");
ABSL_FLAG(std::string, solver, "euler", "euler or dpmpp2m");
ABSL_FLAG(int, side, 0, "side of pictures in pixels, 64 to 1024; 0: the checkpoint's default size");
ABSL_FLAG(int, max_new_tokens, 64, "tokens of an answer at most, 1 to 1024");

namespace lancet {
namespace {

constexpr char kUsage[] = R"(what arithmetics and quantisations do to a model's pictures, edits and answers.

  lancet-eval --model_dir MODEL [--requests SET] [--judge FILE] [LINE ...]

Each LINE is [NAME=]MODE[@TRUNK]: MODE is a --linear_mode of lancet-worker, TRUNK another trunk of the same model (its
file, or the folder that lancet-quantize made, or one that has nvfp4_state_dict.safetensors or model.safetensors, which is in bf16 then). Lines are compared with the first one.
Default: w4a16 w4a8_int8 w4a8_fp8 w4a4. A quantiser is judged against its source:

  lancet-eval --model_dir models/demo --judge tools/eval/demo_judge.json source=w4a16@SOURCE published=w4a16@PUBLISHED best=w4a16@BEST

Prints a Markdown table. Pictures and edits: scenes that the judge found right; PSNR to the ideal picture where the set has
it; PSNR (mean and least), SSIM of brightness and error of the final latents, all against the first line's. Answers: those
that equal the right one, and the first line's, character by character.)";

struct Line {
  std::string name;
  LinearMode mode = LinearMode::kW4A16;
  std::string trunk;  // a file; empty: that of the flags
};

absl::StatusOr<Line> ParseLine(absl::string_view text) {
  Line line;
  const size_t equals = text.find('=');
  absl::string_view rest = equals == absl::string_view::npos ? text : text.substr(equals + 1);
  line.name = std::string(equals == absl::string_view::npos ? text : text.substr(0, equals));
  const size_t at = rest.find('@');
  if (at != absl::string_view::npos) {
    namespace fs = std::filesystem;
    std::error_code error;
    const fs::path trunk{std::string(rest.substr(at + 1))};
    line.trunk = trunk.string();
    for (const char* file : {"nvfp4_state_dict.safetensors", "Lance_3B-NVFP4/nvfp4_state_dict.safetensors",
                             "model.safetensors", "model.safetensors.index.json"}) {
      if (!fs::is_directory(line.trunk, error)) break;
      if (fs::is_regular_file(trunk / file, error)) line.trunk = (trunk / file).string();
    }
    rest = rest.substr(0, at);
  }
  absl::StatusOr<LinearMode> mode = ParseLinearMode(rest, /*on_cuda=*/false);
  if (!mode.ok() || line.name.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("line ", Quote(text), " is not [NAME=]MODE[@TRUNK]",
                     mode.ok() ? "" : absl::StrCat(": ", mode.status().message())));
  }
  line.mode = *mode;
  return line;
}

absl::Status CheckFlag(const char* name, int value, int least, int most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--", name, " is ", value, "; expected ", least, " to ", most));
}

absl::StatusOr<RequestSetOptions> SetOptionsFromFlags() {
  LANCET_RETURN_IF_ERROR(CheckFlag("ranks", absl::GetFlag(FLAGS_ranks), 1, 64));
  LANCET_RETURN_IF_ERROR(CheckFlag("threads", absl::GetFlag(FLAGS_threads), 1, 1024));
  LANCET_RETURN_IF_ERROR(CheckFlag("most", absl::GetFlag(FLAGS_most), 1, 1000));
  LANCET_RETURN_IF_ERROR(CheckFlag("steps", absl::GetFlag(FLAGS_steps), 1, 1000));
  LANCET_RETURN_IF_ERROR(CheckFlag("max_new_tokens", absl::GetFlag(FLAGS_max_new_tokens), 1, 1024));
  const int side = absl::GetFlag(FLAGS_side);
  if (side != 0) LANCET_RETURN_IF_ERROR(CheckFlag("side", side, 64, 1024));
  RequestSetOptions options;
  options.most = static_cast<size_t>(absl::GetFlag(FLAGS_most));
  options.sampler.num_steps = absl::GetFlag(FLAGS_steps);
  options.side = side / kPixelsPerLatent * kPixelsPerLatent;
  options.max_new_tokens = absl::GetFlag(FLAGS_max_new_tokens);
  const std::string solver = absl::GetFlag(FLAGS_solver);
  if (solver != "euler" && solver != "dpmpp2m") {
    return absl::InvalidArgumentError(
        absl::StrCat("--solver is ", Quote(solver), "; expected euler or dpmpp2m"));
  }
  if (solver == "dpmpp2m") options.sampler.solver = Solver::kDpmpp2m;
  return options;
}

absl::StatusOr<EngineOptions> EngineOptionsFromFlags(const RequestSet& set, LinearMode mode) {
  EngineOptions options;
  const std::string device = absl::GetFlag(FLAGS_device);
  if (device != "cpu" && device != "cuda") {
    return absl::InvalidArgumentError(absl::StrCat("--device is ", Quote(device), "; expected cpu or cuda"));
  }
  if (device == "cuda") options.device = DeviceKind::kCuda;
  options.threads = absl::GetFlag(FLAGS_threads);
  options.max_requests = 1;
  for (const SetRequest* request : set.All()) {
    options.max_latents = std::max(options.max_latents, request->plan.target.num_latents());
  }
  options.linears = {mode, absl::GetFlag(FLAGS_bf16_linears), absl::GetFlag(FLAGS_activation_factors)};
  return options;
}

absl::Status WritePictures(const std::string& line, const SetOutputs& outputs) {
  const std::string folder = absl::GetFlag(FLAGS_output_dir);
  if (folder.empty()) return absl::OkStatus();
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  const std::string name = absl::StrReplaceAll(line, {{"/", "_"}, {" ", "_"}});
  for (const auto& [kind, pictures] :
       {std::pair("picture", &outputs.pictures), std::pair("edit", &outputs.edits)}) {
    for (size_t i = 0; i < pictures->size(); ++i) {
      LANCET_ASSIGN_OR_RETURN(const std::string bytes, EncodeImage((*pictures)[i].image, ImageFormat::kPng));
      const std::string path = absl::StrFormat("%s/%s_%s_%02d.png", folder, name, kind, i);
      std::ofstream file(path, std::ios::binary | std::ios::trunc);
      file << bytes;
      file.close();
      if (!file.good()) return absl::UnavailableError(absl::StrCat(path, ": cannot be written"));
    }
  }
  return absl::OkStatus();
}

// Loads the line's model and runs the set, whose plans fit every trunk of the model.
absl::StatusOr<SetOutputs> RunLine(const Line& line, const RequestSet& set, const Checkpoint& checkpoint) {
  std::unique_ptr<Checkpoint> other;
  if (!line.trunk.empty()) {
    CheckpointPaths overrides = CheckpointPathsFromFlags();
    overrides.trunk = line.trunk;
    overrides.trunk_meta.clear();
    LANCET_ASSIGN_OR_RETURN(const CheckpointPaths paths, ResolveCheckpoint(overrides));
    LANCET_ASSIGN_OR_RETURN(other, Checkpoint::Open(paths));
  }
  LANCET_ASSIGN_OR_RETURN(const EngineOptions options, EngineOptionsFromFlags(set, line.mode));
  LANCET_ASSIGN_OR_RETURN(const auto group, RankGroup::Load(other != nullptr ? *other : checkpoint,
                                                            absl::GetFlag(FLAGS_ranks), options));
  other.reset();
  const absl::Time begin = absl::Now();
  size_t done = 0;
  return RunSet(*group, set, [&](const SetRequest& request) {
    std::cerr << absl::StrFormat("%s: %d of %d after %.0f s: %s\n", line.name, ++done, set.All().size(),
                                 absl::ToDoubleSeconds(absl::Now() - begin), request.text);
  });
}

absl::Status Run(const std::vector<std::string>& arguments) {
  std::vector<Line> lines;
  for (const std::string& argument :
       arguments.empty() ? std::vector<std::string>{"w4a16", "w4a8_int8", "w4a8_fp8", "w4a4"} : arguments) {
    LANCET_ASSIGN_OR_RETURN(lines.emplace_back(), ParseLine(argument));
  }
  LANCET_ASSIGN_OR_RETURN(const RequestSetOptions options, SetOptionsFromFlags());
  // Plans fit every trunk of the model. A model of which there are only trunks elsewhere takes the first
  // line's for that.
  CheckpointPaths overrides = CheckpointPathsFromFlags();
  absl::StatusOr<CheckpointPaths> paths = ResolveCheckpoint(overrides);
  if (!paths.ok() && !lines[0].trunk.empty()) {
    for (const Line& line : lines) {
      if (line.trunk.empty()) return paths.status();
    }
    overrides.trunk = lines[0].trunk;
    paths = ResolveCheckpoint(overrides);
  }
  LANCET_RETURN_IF_ERROR(paths.status());
  LANCET_ASSIGN_OR_RETURN(const auto checkpoint, Checkpoint::Open(*paths));
  std::string requests = absl::GetFlag(FLAGS_requests);
  if (requests.empty()) requests = absl::StrCat(paths->model_dir, "/expected");
  LANCET_ASSIGN_OR_RETURN(const RequestSet set, LoadRequestSet(*checkpoint, requests, options));
  std::optional<SceneJudge> judge;
  if (const std::string path = absl::GetFlag(FLAGS_judge); !path.empty()) {
    LANCET_ASSIGN_OR_RETURN(judge, SceneJudge::Open(path));
  }
  std::cout << set.pictures.size() << " pictures, " << set.edits.size() << " edits, " << set.questions.size()
            << " questions; " << options.sampler.num_steps << " steps, " << absl::GetFlag(FLAGS_device)
            << ". No perceptual distance: no network for one is at hand.\n\n";
  std::optional<SetOutputs> reference;
  std::vector<std::pair<std::string, SetScores>> scores;
  for (const Line& line : lines) {
    LANCET_ASSIGN_OR_RETURN(SetOutputs outputs, RunLine(line, set, *checkpoint));
    LANCET_RETURN_IF_ERROR(WritePictures(line.name, outputs));
    LANCET_ASSIGN_OR_RETURN(SetScores score,
                            ScoreSet(set, outputs, reference.has_value() ? *reference : outputs,
                                     judge.has_value() ? &*judge : nullptr));
    if (!reference.has_value()) {
      // Likeness to itself is no figure.
      for (DrawnScores* drawn : {&score.pictures, &score.edits}) {
        drawn->psnr = drawn->least_psnr = drawn->ssim = drawn->latents = std::nullopt;
      }
      reference = std::move(outputs);
    }
    scores.emplace_back(line.name, score);
    // As it grows: a long run that is stopped has said something.
    if (scores.size() < lines.size()) std::cerr << ScoreTable(scores);
  }
  std::cout << ScoreTable(scores);
  return absl::OkStatus();
}

}  // namespace
}  // namespace lancet

int main(int argc, char** argv) {
  const std::vector<std::string> arguments = lancet::ParseProgramFlags(argc, argv, lancet::kUsage);
  const absl::Status status = lancet::Run(arguments);
  if (!status.ok()) {
    std::cerr << "lancet-eval: " << status << "\n";
    return 1;
  }
  return 0;
}
