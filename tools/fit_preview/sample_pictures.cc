#include "tools/fit_preview/sample_pictures.h"

#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/bf16.h"
#include "common/request_plan.h"
#include "common/status_macros.h"
#include "coordinator/request/plan_builder.h"
#include "coordinator/request/tokenizer.h"
#include "worker/collective/local_collective.h"
#include "worker/engine/denoise.h"
#include "worker/engine/engine.h"
#include "worker/engine/engine_trace.h"
#include "worker/engine/latent_preview.h"

namespace lancet {
namespace {

constexpr uint64_t kFirstSeed = 42;
constexpr int32_t kMaxPromptTokens = 2048;

// Keeps the latents after every step.
class LatentRecorder final : public EngineTrace {
 public:
  std::optional<std::vector<bf16>> StartNoise(uint64_t /*request_id*/) override { return std::nullopt; }
  void OnCache(uint64_t /*request_id*/, bool /*conditional*/, ConstMatrixView<bf16> /*keys*/,
               ConstMatrixView<bf16> /*values*/) override {}
  void OnVelocity(uint64_t /*request_id*/, int32_t /*step*/, bool /*conditional*/,
                  ConstMatrixView<bf16> /*velocity*/) override {}
  void OnLatents(uint64_t /*request_id*/, int32_t /*steps_done*/, ConstMatrixView<bf16> latents) override {
    std::vector<float>& step = steps.emplace_back();
    for (int64_t i = 0; i < latents.rows * latents.cols; ++i) step.push_back(ToFloat(latents.data[i]));
  }

  std::vector<std::vector<float>> steps;  // [steps + 1][num_latents * 48], the noise first
};

absl::Status Draw(Engine& engine, const RequestPlan& plan) {
  LANCET_RETURN_IF_ERROR(engine.Admit(plan));
  std::vector<Work> work;
  for (int32_t i = 0; i < static_cast<int32_t>(plan.prefix.size()); ++i) {
    work.push_back({plan.request_id, WorkKind::kPrefill, i, PreviewMethod::kNone});
  }
  for (int32_t i = 0; i < plan.sampler.num_steps; ++i) {
    work.push_back({plan.request_id, WorkKind::kDenoise, i, PreviewMethod::kNone});
  }
  LANCET_RETURN_IF_ERROR(engine.Iterate(work).status());
  return engine.Release(plan.request_id);
}

// The estimate of the clean latents after `done` steps: the line of the last step, followed to time 0.
std::vector<float> Estimate(const std::vector<std::vector<float>>& steps, const std::vector<float>& times,
                            int32_t done) {
  std::vector<float> clean = steps[done];
  const float ratio = times[done] / (times[done - 1] - times[done]);
  for (size_t i = 0; i < clean.size(); ++i) clean[i] -= ratio * (steps[done - 1][i] - steps[done][i]);
  return clean;
}

absl::StatusOr<LatentColours> Pair(const KernelContext& ctx, VaeDecoder& decoder, std::vector<float> latents,
                                   const TargetBlock& target) {
  const int64_t rows = target.num_latents();
  LANCET_ASSIGN_OR_RETURN(const std::vector<float> planes,
                          decoder.Decode(ctx, {latents.data(), rows, kLatentChannels}, target.latent_height,
                                         target.latent_width));
  LatentColours pair{std::move(latents), std::vector<float>(rows * 3)};
  LANCET_RETURN_IF_ERROR(
      BlockMeans(planes, target.latent_height, target.latent_width, {pair.colours.data(), rows, 3}));
  return pair;
}

}  // namespace

void LatentColours::Append(const LatentColours& other) {
  latents.insert(latents.end(), other.latents.begin(), other.latents.end());
  colours.insert(colours.end(), other.colours.begin(), other.colours.end());
}

absl::StatusOr<std::vector<LatentColours>> SamplePictures(const Checkpoint& checkpoint,
                                                          const SampleOptions& options,
                                                          const KernelContext& ctx, VaeDecoder& decoder,
                                                          const std::function<void(size_t)>& progress) {
  const CheckpointPaths& paths = checkpoint.paths();
  LANCET_ASSIGN_OR_RETURN(auto tokenizer,
                          Tokenizer::Load({paths.vocab, paths.merges, paths.tokenizer_config}));
  LANCET_ASSIGN_OR_RETURN(const auto plans,
                          PlanBuilder::Create({checkpoint.config(), std::move(tokenizer), kMaxPromptTokens}));
  EngineOptions engine_options;
  engine_options.threads = options.threads;
  engine_options.max_latents = decoder.max_latents();
  engine_options.max_requests = 1;
  LANCET_ASSIGN_OR_RETURN(const auto engine, Engine::Load(checkpoint, engine_options));
  LANCET_ASSIGN_OR_RETURN(const auto collective, SingleRankCollective::Create(engine->collective_capacity()));
  LANCET_RETURN_IF_ERROR(engine->Attach(collective.get()));

  std::vector<LatentColours> pictures;
  for (size_t p = 0; p < options.prompts.size(); ++p) {
    progress(p);
    GenerateParams params;
    params.prompt = options.prompts[p];
    params.seed = kFirstSeed + p;
    params.sampler.num_steps = options.num_steps;
    params.width = options.size.width;
    params.height = options.size.height;
    LANCET_ASSIGN_OR_RETURN(const RequestPlan plan, plans->Build(p + 1, params));
    LatentRecorder recorder;
    engine->set_trace(&recorder);
    const absl::Status drawn = Draw(*engine, plan);
    engine->set_trace(nullptr);
    LANCET_RETURN_IF_ERROR(drawn);

    const std::vector<float> times = TimestepSchedule(options.num_steps, params.sampler.timestep_shift);
    LatentColours& picture = pictures.emplace_back();
    for (const int32_t done :
         {(options.num_steps + 2) / 3, (2 * options.num_steps + 2) / 3, options.num_steps}) {
      LANCET_ASSIGN_OR_RETURN(const LatentColours pair,
                              Pair(ctx, decoder, Estimate(recorder.steps, times, done), plan.target));
      picture.Append(pair);
    }
  }
  return pictures;
}

}  // namespace lancet
