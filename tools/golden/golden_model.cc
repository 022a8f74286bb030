// Stages of the model on their own: time embedding, tables, schedule, autoencoder.

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "kernels/kernel_context.h"
#include "kernels/vae_ops.h"
#include "tools/golden/golden_runs.h"
#include "worker/engine/denoise.h"
#include "worker/loader/shard_plan.h"
#include "worker/model/latent_embedding.h"
#include "worker/model/rope_table.h"
#include "worker/model/vae/vae_decoder.h"
#include "worker/model/vae/vae_encoder.h"

namespace lancet {
namespace {

struct EncodedPicture {
  VaeMoments moments;
  std::vector<double> latents;
};

absl::StatusOr<EncodedPicture> EncodePicture(const GoldenContext& context, const RgbImage& image) {
  EncodedPicture encoded;
  if (context.cuda != nullptr) {
    LANCET_ASSIGN_OR_RETURN(StageEncodedPicture picture, context.cuda->Encode(image));
    encoded.moments = std::move(picture.moments);
    for (const bf16 x : picture.latents) encoded.latents.push_back(ToFloat(x));
    return encoded;
  }
  LANCET_ASSIGN_OR_RETURN(const auto ctx, KernelContext::CreateCpu({}));
  ctx->BindCallingThread();
  LANCET_ASSIGN_OR_RETURN(const auto vae, VaeEncoder::Load(*ctx, context.checkpoint.vae()));
  LANCET_ASSIGN_OR_RETURN(const std::vector<float> pixels, ImageToPixels(image));
  LANCET_ASSIGN_OR_RETURN(encoded.moments, vae->Moments(*ctx, pixels, image.height, image.width));
  LANCET_ASSIGN_OR_RETURN(const std::vector<float> latents, vae->Encode(*ctx, image));
  encoded.latents.assign(latents.begin(), latents.end());
  return encoded;
}

// Posterior mean and log-variance of the first frame, and its normalised latents.
absl::Status RunVaeEncode(const GoldenContext& context, const std::string& case_name, const StateDict& dict,
                          int64_t height, int64_t width) {
  LANCET_ASSIGN_OR_RETURN(const TensorView frames, dict.Get("frames"));
  if (frames.dtype != DType::kU8 || frames.shape.size() != 4 || frames.shape[0] < 1 ||
      frames.shape[1] != height * kPixelsPerLatent || frames.shape[2] != width * kPixelsPerLatent ||
      frames.shape[3] != 3) {
    return absl::InvalidArgumentError(absl::StrCat("frames have shape ", ShapeString(frames.shape)));
  }
  const auto* bytes = frames.as<uint8_t>();
  RgbImage image{static_cast<int32_t>(frames.shape[2]), static_cast<int32_t>(frames.shape[1]), {}};
  image.pixels.assign(bytes, bytes + 3 * frames.shape[1] * frames.shape[2]);
  LANCET_ASSIGN_OR_RETURN(const EncodedPicture encoded, EncodePicture(context, image));
  // The golden's moments are [channels, 1, h, w].
  const auto planes = [&](const std::vector<float>& rows) {
    std::vector<double> out;
    for (int64_t c = 0; c < kLatentChannels; ++c) {
      for (int64_t p = 0; p < height * width; ++p) out.push_back(rows[p * kLatentChannels + c]);
    }
    return out;
  };
  CompareRms(context, case_name, "mu_1", planes(encoded.moments.mean), dict);
  CompareRms(context, case_name, "logvar_1", planes(encoded.moments.log_variance), dict);
  CompareRms(context, case_name, "encoded_1", encoded.latents, dict);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<bf16>> TimeRows(const GoldenContext& context, absl::Span<const float> times) {
  if (context.cuda != nullptr) return context.cuda->TimeRows(times);
  const ModelConfig& config = context.checkpoint.config();
  LANCET_ASSIGN_OR_RETURN(const auto ctx, KernelContext::CreateCpu({}));
  ctx->BindCallingThread();
  LANCET_ASSIGN_OR_RETURN(const ShardPlan plan, MakeShardPlan(config, 0, 1));
  LANCET_ASSIGN_OR_RETURN(const TrunkWeights weights, TrunkWeights::Load(*ctx, context.checkpoint.trunk(),
                                                                         config, plan, /*with_head=*/false));
  std::vector<bf16> out(times.size() * config.hidden_size);
  for (size_t i = 0; i < times.size(); ++i) {
    LANCET_RETURN_IF_ERROR(
        EmbedTime(*ctx, weights, times[i],
                  MatrixView<bf16>(out.data() + i * config.hidden_size, 1, config.hidden_size)));
  }
  return out;
}

StageRotaryRows CpuRotaryRows(const ModelConfig& config, const Positions& positions) {
  const RopeTable rope(config);
  const int64_t n = rope.num_frequencies();
  const size_t rows = positions.t.size();
  StageRotaryRows result{std::vector<bf16>(rows * n), std::vector<bf16>(rows * n)};
  for (size_t i = 0; i < rows; ++i) {
    rope.Row(positions.t[i], positions.h[i], positions.w[i], result.cos.data() + i * n,
             result.sin.data() + i * n);
  }
  return result;
}

}  // namespace

absl::StatusOr<std::vector<double>> DecodeLatents(const GoldenContext& context, const bf16* latents,
                                                  int64_t height, int64_t width) {
  std::vector<float> values(height * width * kLatentChannels);
  std::transform(latents, latents + values.size(), values.begin(), ToFloat);
  const ConstMatrixView<float> view(values.data(), height * width, kLatentChannels);
  std::vector<float> pixels;
  if (context.cuda != nullptr) {
    LANCET_ASSIGN_OR_RETURN(pixels, context.cuda->Decode(view, height, width));
  } else {
    LANCET_ASSIGN_OR_RETURN(const auto ctx, KernelContext::CreateCpu({}));
    ctx->BindCallingThread();
    LANCET_ASSIGN_OR_RETURN(const auto vae, VaeDecoder::Load(*ctx, context.checkpoint.vae()));
    LANCET_ASSIGN_OR_RETURN(pixels, vae->Decode(*ctx, view, height, width));
  }
  return std::vector<double>(pixels.begin(), pixels.end());
}

absl::Status RunTimeEmbeddingCase(const GoldenContext& context, const std::string& case_name) {
  LANCET_ASSIGN_OR_RETURN(const auto dict, context.folder.Tensors(case_name));
  LANCET_ASSIGN_OR_RETURN(const TensorView times, dict->Get("t"));
  LANCET_ASSIGN_OR_RETURN(const TensorView features, dict->Get("features"));
  const int64_t rows = times.num_elements();
  if (features.shape.size() != 2 || features.shape[0] != rows) {
    return absl::InvalidArgumentError(absl::StrCat("features have shape ", ShapeString(features.shape)));
  }
  std::vector<double> our_features;
  for (int64_t i = 0; i < rows; ++i) {
    const float t = times.as<float>()[i];
    const std::vector<float> row = TimeFeatures(t, features.shape[1]);
    our_features.insert(our_features.end(), row.begin(), row.end());
  }
  // f32 sines of f32 angles: a few units in the last place.
  context.report.AddLimit(case_name, "features", RelativeRms(our_features, ToDoubles(features)), 1e-6, "f32");
  LANCET_ASSIGN_OR_RETURN(const std::vector<bf16> out,
                          TimeRows(context, {times.as<float>(), static_cast<size_t>(rows)}));
  std::vector<double> values;
  for (const bf16 x : out) values.push_back(ToFloat(x));
  CompareRms(context, case_name, "out", values, *dict);
  return absl::OkStatus();
}

absl::Status RunTablesCase(const GoldenContext& context, const std::string& case_name) {
  LANCET_ASSIGN_OR_RETURN(const auto dict, context.folder.Tensors(case_name));
  LANCET_ASSIGN_OR_RETURN(const TensorView position, dict->Get("rope.position"));
  LANCET_ASSIGN_OR_RETURN(const TensorView cos, dict->Get("rope.cos"));
  LANCET_ASSIGN_OR_RETURN(const TensorView sin, dict->Get("rope.sin"));
  const ModelConfig& config = context.checkpoint.config();
  const int64_t rows = cos.shape[0];
  const int64_t n = config.head_dim / 2;
  if (cos.shape != Shape{rows, n} || sin.shape != cos.shape || position.shape != Shape{3, rows}) {
    return absl::InvalidArgumentError(
        absl::StrCat("rope.cos has shape ", ShapeString(cos.shape), "; head_dim is ", config.head_dim));
  }
  const int32_t* p = position.as<int32_t>();
  Positions rope_positions;
  rope_positions.t.assign(p, p + rows);
  rope_positions.h.assign(p + rows, p + 2 * rows);
  rope_positions.w.assign(p + 2 * rows, p + 3 * rows);
  StageRotaryRows ours;
  if (context.cuda != nullptr) {
    LANCET_ASSIGN_OR_RETURN(ours, context.cuda->RotaryRows(rope_positions));
  } else {
    ours = CpuRotaryRows(config, rope_positions);
  }
  TableCount rope_count;
  for (int64_t i = 0; i < rows * n; ++i) {
    rope_count.Add(ours.cos[i], cos.as<bf16>()[i]);
    rope_count.Add(ours.sin[i], sin.as<bf16>()[i]);
  }
  rope_count.Report(context, case_name, "rope");

  LANCET_ASSIGN_OR_RETURN(const TensorView index, dict->Get("latent.index"));
  for (const std::string& name : dict->names()) {
    if (!absl::StartsWith(name, "latent.width_")) continue;
    LANCET_ASSIGN_OR_RETURN(const TensorView table, dict->Get(name));
    const int64_t width = table.shape.back();
    const LatentPositionTable positions(width, config.max_latent_side);
    std::vector<bf16> row(width);
    TableCount count;
    for (int64_t i = 0; i < index.num_elements(); ++i) {
      positions.Row(index.as<int32_t>()[i], row.data());
      for (int64_t c = 0; c < width; ++c) count.Add(row[c], table.as<bf16>()[i * width + c]);
    }
    count.Report(context, case_name, name);
  }
  if (dict->Contains("vit.place")) return AddVisionTable(context, case_name, *dict);
  return absl::OkStatus();
}

absl::Status RunScheduleCase(const GoldenContext& context, const std::string& case_name) {
  LANCET_ASSIGN_OR_RETURN(const nlohmann::json schedules, context.folder.Json(case_name));
  for (const auto& schedule : schedules) {
    const int32_t steps = schedule.value("steps", 0);
    SamplerParams sampler;
    sampler.num_steps = steps;
    sampler.timestep_shift = schedule.value("shift", 0.0f);
    const std::vector<float> times = TimestepSchedule(steps, sampler.timestep_shift);
    int64_t wrong = 0;
    for (int32_t i = 0; i <= steps; ++i) wrong += times[i] != schedule["t"][i].get<float>() ? 1 : 0;
    for (int32_t i = 0; i < steps; ++i) {
      const float dt = times[i] - times[i + 1];
      wrong += dt != schedule["dt"][i].get<float>() ? 1 : 0;
      wrong += RoundToBf16(dt) != schedule["dt_bf16"][i].get<float>() ? 1 : 0;
      wrong += IsGuided(sampler, times[i]) != schedule["guided"][i].get<bool>() ? 1 : 0;
    }
    context.report.AddExact(case_name, absl::StrCat(steps, " steps, ", sampler.timestep_shift), wrong,
                            4 * steps + 1);
  }
  return absl::OkStatus();
}

absl::Status RunVaeCase(const GoldenContext& context, const std::string& case_name) {
  LANCET_ASSIGN_OR_RETURN(const auto dict, context.folder.Tensors(case_name));
  LANCET_ASSIGN_OR_RETURN(const TensorView z, dict->Get("z"));
  LANCET_ASSIGN_OR_RETURN(const TensorView decoded, dict->Get("fp64.decoded_1"));
  if (decoded.shape.size() != 4 || decoded.shape[1] != 1 || z.shape.size() != 2 || z.dtype != DType::kBf16) {
    return absl::InvalidArgumentError("z or fp64.decoded_1 has an unexpected shape");
  }
  const int64_t height = decoded.shape[2] / kPixelsPerLatent;
  const int64_t width = decoded.shape[3] / kPixelsPerLatent;
  LANCET_ASSIGN_OR_RETURN(const std::vector<double> pixels,
                          DecodeLatents(context, z.as<bf16>(), height, width));
  CompareRms(context, case_name, "decoded_1", pixels, *dict);
  LANCET_RETURN_IF_ERROR(RunVaeEncode(context, case_name, *dict, height, width));
  context.report.AddSkipped(absl::StrCat(case_name, " 9 frames"), "video is not built");
  return absl::OkStatus();
}

}  // namespace lancet
