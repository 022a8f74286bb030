// End to end: prompt and picture to tokens and features, those to velocities and latents, latents to pixels,
// with the case's start noise.

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "coordinator/request/image_codec.h"
#include "tools/golden/golden_plan.h"
#include "tools/golden/golden_recorder.h"
#include "tools/golden/golden_runs.h"
#include "worker/loader/shard_plan.h"

namespace lancet {
namespace {

// [tokens, kv heads, head_dim] of all heads from the ranks' shares.
std::vector<double> JoinHeads(const GoldenContext& context,
                              const std::vector<std::unique_ptr<Recorder>>& recorders,
                              std::vector<double> Recorder::*part) {
  const ModelConfig& config = context.checkpoint.config();
  const int64_t full = config.num_kv_heads * config.head_dim;
  std::vector<double> joined;
  for (int rank = 0; rank < context.world_size; ++rank) {
    const auto plan = MakeShardPlan(config, rank, context.world_size);
    const std::vector<double>& values = (*recorders[rank]).*part;
    if (!plan.ok() || plan->kv_cols() == 0) continue;
    const int64_t tokens = static_cast<int64_t>(values.size()) / plan->kv_cols();
    joined.resize(tokens * full);
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t c = 0; c < plan->kv_cols(); ++c) {
        joined[t * full + plan->kv_heads.begin * config.head_dim + c] = values[t * plan->kv_cols() + c];
      }
    }
  }
  return joined;
}

// The bytes a user gets against the oracle's picture: mean difference in levels, in units of that of the bf16
// run.
absl::Status ComparePng(const GoldenContext& context, const std::string& case_name,
                        const nlohmann::json& golden, const RgbImage& image) {
  const std::string file = absl::StrCat(case_name, ".png");
  if (!context.folder.Has(file) || !golden.contains("u8_bf16_vs_fp64")) return absl::OkStatus();
  LANCET_ASSIGN_OR_RETURN(const RgbImage expected, context.folder.Png(file));
  if (expected.width != image.width || expected.height != image.height) {
    return absl::InvalidArgumentError(absl::StrCat(file, " is ", expected.width, " x ", expected.height,
                                                   "; ours is ", image.width, " x ", image.height));
  }
  double sum = 0;
  for (size_t i = 0; i < image.pixels.size(); ++i) {
    sum += std::abs(static_cast<int>(image.pixels[i]) - static_cast<int>(expected.pixels[i]));
  }
  context.report.AddRms(case_name, "png (mean level)", sum / static_cast<double>(image.pixels.size()),
                        golden["u8_bf16_vs_fp64"].value("mean", 0.0), file);
  return absl::OkStatus();
}

}  // namespace

absl::Status RunPictureCase(const GoldenContext& context, const std::string& case_name) {
  LANCET_ASSIGN_OR_RETURN(const nlohmann::json golden, context.folder.Json(case_name));
  LANCET_ASSIGN_OR_RETURN(const auto dict, context.folder.Tensors(case_name));
  LANCET_ASSIGN_OR_RETURN(const RequestPlan plan, BuildGoldenPlan(context, case_name, golden));
  LANCET_RETURN_IF_ERROR(CompareTokenIds(context, case_name, golden, plan));

  LANCET_ASSIGN_OR_RETURN(const TensorView noise, GetChecked(*dict, "noise", DType::kBf16,
                                                             {plan.target.num_latents(), kLatentChannels}));
  std::vector<std::unique_ptr<Recorder>> recorders;
  std::vector<EngineTrace*> traces;
  for (int rank = 0; rank < context.world_size; ++rank) {
    recorders.push_back(std::make_unique<Recorder>(
        std::vector<bf16>(noise.as<bf16>(), noise.as<bf16>() + noise.num_elements())));
    traces.push_back(recorders.back().get());
  }
  LANCET_ASSIGN_OR_RETURN(const std::vector<WorkResult> results, context.engines.Run(plan, traces));
  const Recorder& first = *recorders[0];
  for (const auto& recorder : recorders) {
    if (recorder->final_latents != first.final_latents) {
      return absl::InternalError("the ranks ended with different latents");
    }
  }

  if (dict->Contains("fp64.kv.cond.k")) {
    CompareRms(context, case_name, "kv.cond.k", JoinHeads(context, recorders, &Recorder::cond_keys), *dict);
    CompareRms(context, case_name, "kv.cond.v", JoinHeads(context, recorders, &Recorder::cond_values), *dict);
    CompareRms(context, case_name, "kv.uncond.k", JoinHeads(context, recorders, &Recorder::uncond_keys),
               *dict);
    CompareRms(context, case_name, "kv.uncond.v", JoinHeads(context, recorders, &Recorder::uncond_values),
               *dict);
  }
  if (dict->Contains("fp64.vit_features")) {
    CompareRms(context, case_name, "vit_features", first.features, *dict);
  }
  if (dict->Contains("fp64.source_latents")) {
    CompareRms(context, case_name, "source_latents", first.condition, *dict);
  }
  CompareRms(context, case_name, "v_cond", first.v_cond, *dict);
  if (dict->Contains("fp64.v_uncond")) CompareRms(context, case_name, "v_uncond", first.v_uncond, *dict);
  CompareRms(context, case_name, "latents", first.latents, *dict);
  std::vector<double> final_latents;
  for (const bf16 x : first.final_latents) final_latents.push_back(ToFloat(x));
  CompareRms(context, case_name, "final", final_latents, *dict);
  if (dict->Contains("fp64.pixels")) {
    LANCET_ASSIGN_OR_RETURN(const std::vector<double> pixels,
                            DecodeLatents(context, first.final_latents.data(), plan.target.latent_height,
                                          plan.target.latent_width));
    CompareRms(context, case_name, "pixels", pixels, *dict);
  }
  return ComparePng(context, case_name, golden, results.back().image.value_or(RgbImage{}));
}

}  // namespace lancet
