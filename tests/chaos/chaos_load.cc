#include "tests/chaos/chaos_load.h"

#include <algorithm>
#include <array>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "common/status_macros.h"
#include "tests/integration/requests.h"

namespace lancet {
namespace {

constexpr char kGolden[] = LANCET_SOURCE_DIR "/tests/data/nano/golden/";
// Of one request. On a busy machine it begins again with every restart of the coordinator and is nearly done
// at some.
constexpr absl::Duration kTimeout = absl::Minutes(10);

ChaosCase Draws(std::string name, int steps, uint64_t seed, RequestSampler sampler) {
  ChaosCase request;
  request.name = std::move(name);
  request.drawing = MakeRequest("a cat", steps, seed);
  request.drawing.size = {64, 64};
  request.drawing.sampler = sampler;
  return request;
}

// Notes what the oracle looks at.
class Witness final : public GenerationObserver {
 public:
  void OnQueued(const QueuedInfo&) override { Heard(); }
  void OnStarted(const StartedInfo&) override {
    Heard();
    ++started;
  }
  void OnProgress(const ProgressInfo&) override { Heard(); }
  void OnPreview(const PreviewInfo& preview) override {
    Heard();
    if (preview.step <= last_preview) preview_twice = true;
    last_preview = preview.step;
  }
  void OnDelta(absl::string_view delta) override {
    Heard();
    text.append(delta.data(), delta.size());
  }
  void Heard() {
    const absl::Time now = absl::Now();
    if (now - last > silence) {
      silence = now - last;
      silence_end = now;
    }
    last = now;
  }

  int started = 0;
  int32_t last_preview = 0;
  bool preview_twice = false;
  std::string text;
  absl::Time last = absl::Now();
  absl::Duration silence;
  absl::Time silence_end;
};

// The same for the same key, so that a request is one trace however often it is sent.
std::string TraceId(const std::string& key) {
  std::seed_seq seed(key.begin(), key.end());
  std::array<uint32_t, 4> words{};
  seed.generate(words.begin(), words.end());
  return absl::StrFormat("%08x%08x%08x%08x", words[0] | 1, words[1], words[2], words[3]);
}

}  // namespace

std::vector<ChaosCase> ChaosCases() {
  std::vector<ChaosCase> cases = {
      Draws("euler", 60, 7, RequestSampler::kEuler), Draws("dpmpp", 45, 8, RequestSampler::kDpmpp2m),
      Draws("previews", 40, 9, RequestSampler::kEuler), Draws("edit", 40, 10, RequestSampler::kEuler),
      Draws("sampled edit", 30, 11, RequestSampler::kDpmpp2m)};
  cases[2].drawing.preview_every_steps = 7;
  for (const size_t edit : {3, 4}) {
    cases[edit].drawing.image = ReadBytes(absl::StrCat(kGolden, "edit_256res.source.png"));
    cases[edit].drawing.preview_every_steps = 16;
    cases[edit].drawing.preview_kind = PreviewKind::kVae;
  }
  cases[4].drawing.sample_condition = true;
  for (const float temperature : {0.0f, 1.0f}) {
    ChaosCase& question = cases.emplace_back();
    question.name = absl::StrCat("question at ", temperature);
    question.asks = true;
    question.question =
        MakeQuestion(ReadBytes(absl::StrCat(kGolden, "x2t_256res.source.png")), "What is it?", 60);
    question.question.temperature = temperature;
    question.question.seed = 12;
    question.question.resolution = InputResolution::kImage256;
  }
  return cases;
}

absl::Status ChaosLoad::Learn(GenerationClient& client, std::vector<ChaosCase>& cases) {
  for (ChaosCase& request : cases) {
    Witness witness;
    if (request.asks) {
      LANCET_ASSIGN_OR_RETURN(const DescriptionResult answer,
                              client.Describe(request.question, &witness, nullptr));
      request.expected = answer.text;
    } else if (request.drawing.image.empty()) {
      LANCET_ASSIGN_OR_RETURN(GenerationResult drawn, client.Generate(request.drawing, &witness, nullptr));
      request.expected = std::move(drawn.image.data);
    } else {
      LANCET_ASSIGN_OR_RETURN(GenerationResult drawn, client.Edit(request.drawing, &witness, nullptr));
      request.expected = std::move(drawn.image.data);
    }
    request.drawing.timeout = kTimeout;
    request.question.timeout = kTimeout;
  }
  return absl::OkStatus();
}

ChaosLoad::ChaosLoad(GenerationClient* client, const std::vector<ChaosCase>* cases, int clients,
                     uint64_t seed)
    : client_(client), cases_(cases), seed_(seed) {
  for (int i = 0; i < clients; ++i) threads_.emplace_back([this, i] { Run(i, seed_); });
}

ChaosLoad::~ChaosLoad() { Stop(); }

void ChaosLoad::Stop() {
  stop_ = true;
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
}

std::vector<std::string> ChaosLoad::failures() const {
  const std::lock_guard<std::mutex> lock(mu_);
  return failures_;
}

std::vector<ChaosLoad::Silence> ChaosLoad::silences() const {
  const std::lock_guard<std::mutex> lock(mu_);
  std::vector<Silence> sorted = silences_;
  std::sort(sorted.begin(), sorted.end(),
            [](const Silence& a, const Silence& b) { return a.length < b.length; });
  return sorted;
}

void ChaosLoad::Run(int client, uint64_t seed) {
  std::mt19937_64 random(seed * 1000 + static_cast<uint64_t>(client));
  for (int i = 0; !stop_; ++i) {
    RunOne((*cases_)[random() % cases_->size()], absl::StrCat("chaos-", seed, "-", client, "-", i));
  }
}

void ChaosLoad::RunOne(const ChaosCase& request, const std::string& key) {
  Witness witness;
  std::string got;
  absl::Status status;
  const std::string trace_id = TraceId(key);
  const std::string traceparent = absl::StrCat("00-", trace_id, "-00f067aa0ba902b7-01");
  if (request.asks) {
    DescriptionRequest question = request.question;
    question.idempotency_key = key;
    question.traceparent = traceparent;
    const auto answer = client_->Describe(question, &witness, nullptr);
    status = answer.status();
    if (answer.ok()) got = answer->text;
    if (answer.ok() && witness.text != answer->text) Fail(request, "the deltas are not the text");
  } else {
    GenerationRequest drawing = request.drawing;
    drawing.idempotency_key = key;
    drawing.traceparent = traceparent;
    const auto drawn = drawing.image.empty() ? client_->Generate(drawing, &witness, nullptr)
                                             : client_->Edit(drawing, &witness, nullptr);
    status = drawn.status();
    if (drawn.ok()) got = drawn->image.data;
  }
  witness.Heard();
  if (!status.ok()) {
    Fail(request, absl::StrCat(key, " ended with ", status.ToString()));
  } else if (got != request.expected) {
    Fail(request, absl::StrCat(key, " gave other bytes than an undisturbed one"));
  } else if (witness.started != 1) {
    Fail(request, absl::StrCat(key, " started ", witness.started, " times"));
  } else if (witness.preview_twice) {
    Fail(request, absl::StrCat(key, " saw a preview twice"));
  }
  ++ended_;
  const std::lock_guard<std::mutex> lock(mu_);
  silences_.push_back({witness.silence, witness.silence_end, absl::StrCat(request.name, " ", key), trace_id});
}

void ChaosLoad::Fail(const ChaosCase& request, const std::string& what) {
  const std::lock_guard<std::mutex> lock(mu_);
  failures_.push_back(absl::StrCat(request.name, ": ", what));
}

}  // namespace lancet
