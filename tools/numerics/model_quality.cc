#include "tools/numerics/model_quality.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "coordinator/request/answer_text.h"
#include "worker/collective/local_collective.h"
#include "worker/engine/warm_up.h"

namespace lancet {
namespace {

constexpr double kEqualPsnr = 99.0;  // shown for equal pictures

class LatentKeeper final : public EngineTrace {
 public:
  void OnLatents(uint64_t /*request_id*/, int32_t /*steps_done*/, ConstMatrixView<bf16> now) override {
    latents.assign(now.data, now.data + now.rows * now.cols);
  }
  std::vector<bf16> latents;
};

double Psnr(const RgbImage& a, const RgbImage& b) {
  if (a.pixels.size() != b.pixels.size() || a.pixels.empty()) return std::numeric_limits<double>::quiet_NaN();
  double sum = 0;
  for (size_t i = 0; i < a.pixels.size(); ++i) {
    const double off = static_cast<double>(a.pixels[i]) - b.pixels[i];
    sum += off * off;
  }
  if (sum == 0) return kEqualPsnr;
  return 10 * std::log10(255.0 * 255.0 * static_cast<double>(a.pixels.size()) / sum);
}

double RelativeError(const std::vector<bf16>& got, const std::vector<bf16>& expected) {
  double off = 0;
  double norm = 0;
  for (size_t i = 0; i < std::min(got.size(), expected.size()); ++i) {
    const double e = ToFloat(expected[i]);
    off += (ToFloat(got[i]) - e) * (ToFloat(got[i]) - e);
    norm += e * e;
  }
  return std::sqrt(off / norm);
}

struct Likeness {
  double to_ideal = 0;  // mean PSNR
  double to_other = 0;  // mean PSNR
  double least = 0;     // of those
  double latents = 0;   // mean relative error
};

Likeness Compare(const std::vector<ModelOutputs::Drawn>& drawn, const std::vector<ModelOutputs::Drawn>& other,
                 const std::vector<ExpectedRequest>& requests) {
  Likeness likeness;
  likeness.least = std::numeric_limits<double>::infinity();
  const double n = static_cast<double>(std::max<size_t>(drawn.size(), 1));
  for (size_t i = 0; i < drawn.size(); ++i) {
    likeness.to_ideal += Psnr(drawn[i].image, requests[i].picture) / n;
    const double psnr = Psnr(drawn[i].image, other[i].image);
    likeness.to_other += psnr / n;
    likeness.least = std::min(likeness.least, psnr);
    likeness.latents += RelativeError(drawn[i].latents, other[i].latents) / n;
  }
  return likeness;
}

}  // namespace

absl::StatusOr<std::unique_ptr<LoneEngine>> LoneEngine::Load(const Checkpoint& checkpoint,
                                                             const EngineOptions& options) {
  auto lone = std::make_unique<LoneEngine>();
  LANCET_ASSIGN_OR_RETURN(lone->engine_, Engine::Load(checkpoint, options));
  LANCET_ASSIGN_OR_RETURN(lone->collective_,
                          SingleRankCollective::Create(lone->engine_->collective_capacity()));
  LANCET_RETURN_IF_ERROR(lone->engine_->Attach(lone->collective_.get()));
  return lone;
}

absl::StatusOr<std::vector<WorkResult>> LoneEngine::Run(const RequestPlan& plan, EngineTrace* trace) {
  engine_->set_trace(trace);
  LANCET_RETURN_IF_ERROR(engine_->Admit(plan));
  std::vector<WorkResult> results;
  // One after the other, so that an answer can end early.
  for (const Work& work : AllWork(plan)) {
    LANCET_ASSIGN_OR_RETURN(std::vector<WorkResult> done, engine_->Iterate({work}));
    const bool ended = done[0].token.has_value() && done[0].token->last;
    results.push_back(std::move(done[0]));
    if (ended) break;
  }
  engine_->set_trace(nullptr);
  LANCET_RETURN_IF_ERROR(engine_->Release(plan.request_id));
  return results;
}

absl::StatusOr<ModelOutputs> RunExpected(LoneEngine& engine, const ExpectedRequests& requests) {
  ModelOutputs outputs;
  for (const auto& [from, to] :
       {std::pair(&requests.pictures, &outputs.pictures), std::pair(&requests.edits, &outputs.edits)}) {
    for (const ExpectedRequest& request : *from) {
      LatentKeeper keeper;
      LANCET_ASSIGN_OR_RETURN(const std::vector<WorkResult> results, engine.Run(request.plan, &keeper));
      to->push_back({results.back().image.value_or(RgbImage{}), std::move(keeper.latents)});
    }
  }
  for (const ExpectedRequest& request : requests.questions) {
    LANCET_ASSIGN_OR_RETURN(const std::vector<WorkResult> results, engine.Run(request.plan, nullptr));
    AnswerText text(&requests.builder->tokenizer());
    for (const WorkResult& result : results) {
      if (!result.token.has_value() || result.token->id == requests.builder->end_of_turn_id()) continue;
      LANCET_RETURN_IF_ERROR(text.Add(result.token->id).status());
    }
    text.Finish();
    outputs.answers.push_back(text.text());
  }
  return outputs;
}

std::string QualityHeader() {
  return absl::StrFormat("%-28s %-32s %-32s %s\n%-28s %8s %8s %6s %7s %8s %8s %6s %7s %6s %5s\n", "",
                         "pictures", "edits", "answers", "", "ideal dB", "to w4a16", "least", "latents",
                         "ideal dB", "to w4a16", "least", "latents", "right", "same");
}

std::string QualityLine(const std::string& name, const ModelOutputs& outputs, const ModelOutputs& reference,
                        const ExpectedRequests& requests) {
  const Likeness pictures = Compare(outputs.pictures, reference.pictures, requests.pictures);
  const Likeness edits = Compare(outputs.edits, reference.edits, requests.edits);
  size_t right = 0;
  size_t same = 0;
  for (size_t i = 0; i < outputs.answers.size(); ++i) {
    right += outputs.answers[i] == requests.questions[i].answer ? 1 : 0;
    same += outputs.answers[i] == reference.answers[i] ? 1 : 0;
  }
  return absl::StrFormat("%-28s %8.1f %8.1f %6.1f %7.3f %8.1f %8.1f %6.1f %7.3f %3d/%2d %2d/%2d\n", name,
                         pictures.to_ideal, pictures.to_other, pictures.least, pictures.latents,
                         edits.to_ideal, edits.to_other, edits.least, edits.latents, right,
                         outputs.answers.size(), same, outputs.answers.size());
}

}  // namespace lancet
