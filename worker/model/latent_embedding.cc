#include "worker/model/latent_embedding.h"

#include <cmath>
#include <cstring>

#include "common/status_macros.h"
#include "kernels/activation.h"
#include "kernels/bf16_gemm.h"

namespace lancet {

LatentPositionTable::LatentPositionTable(int64_t width, int64_t max_side)
    : width_(width), max_side_(max_side), extent_th_(width / 3 / 2 * 2) {
  for (int64_t side = 0; side < max_side; ++side) {
    const std::vector<bf16> h = Part(extent_th_, side);
    by_position_.insert(by_position_.end(), h.begin(), h.end());
    const std::vector<bf16> w = Part(width_ - 2 * extent_th_, side);
    by_position_w_.insert(by_position_w_.end(), w.begin(), w.end());
  }
}

std::vector<bf16> LatentPositionTable::Part(int64_t extent, int64_t position) const {
  std::vector<bf16> part(extent);
  const int64_t half = extent / 2;
  for (int64_t j = 0; j < half; ++j) {
    const double omega = std::pow(10000.0, -static_cast<double>(j) / static_cast<double>(half));
    const double angle = static_cast<double>(position) * omega;
    part[j] = ToBf16(static_cast<float>(std::sin(angle)));
    part[half + j] = ToBf16(static_cast<float>(std::cos(angle)));
  }
  return part;
}

void LatentPositionTable::Row(int64_t index, bf16* out) const {
  const int64_t t = index / (max_side_ * max_side_);
  const int64_t y = index / max_side_ % max_side_;
  const int64_t x = index % max_side_;
  const int64_t extent_w = width_ - 2 * extent_th_;
  std::memcpy(out, by_position_.data() + t * extent_th_, extent_th_ * sizeof(bf16));
  std::memcpy(out + extent_th_, by_position_.data() + y * extent_th_, extent_th_ * sizeof(bf16));
  std::memcpy(out + 2 * extent_th_, by_position_w_.data() + x * extent_w, extent_w * sizeof(bf16));
}

std::vector<float> TimeFeatures(float t, int64_t num_features) {
  const int64_t half = num_features / 2;
  std::vector<float> features(num_features);
  for (int64_t k = 0; k < half; ++k) {
    const float frequency = std::exp(-std::log(10000.0f) * static_cast<float>(k) / static_cast<float>(half));
    const float angle = t * frequency;
    features[k] = std::cos(angle);
    features[half + k] = std::sin(angle);
  }
  return features;
}

absl::Status EmbedTime(const KernelContext& ctx, const TrunkWeights& weights, float t, MatrixView<bf16> out) {
  const std::vector<float> features = TimeFeatures(t, weights.time_features);
  std::vector<bf16> rounded(features.size());
  for (size_t i = 0; i < features.size(); ++i) rounded[i] = ToBf16(features[i]);
  std::vector<bf16> inner(out.cols);
  const MatrixView<bf16> inner_view(inner.data(), 1, out.cols);
  const ConstMatrixView<bf16> features_view(rounded.data(), 1, static_cast<int64_t>(rounded.size()));
  LANCET_RETURN_IF_ERROR(
      Bf16Gemm(ctx, features_view, weights.time_in.weight, weights.time_in.bias, inner_view));
  LANCET_RETURN_IF_ERROR(Silu(ctx, inner_view));
  return Bf16Gemm(ctx, inner_view, weights.time_out.weight, weights.time_out.bias, out);
}

absl::Status EmbedLatents(const KernelContext& ctx, const TrunkWeights& weights,
                          const LatentPositionTable& positions, ConstMatrixView<bf16> latents,
                          int64_t latent_width, ConstMatrixView<bf16> time, MatrixView<bf16> out) {
  LANCET_RETURN_IF_ERROR(Bf16Gemm(ctx, latents, weights.vae2llm.weight, weights.vae2llm.bias, out));
  ctx.pool().ParallelFor(latents.rows, 16, [&](int64_t begin, int64_t end, int /*thread*/) {
    std::vector<bf16> position(out.cols);
    for (int64_t i = begin; i < end; ++i) {
      // The table's lines are max_side long whatever the picture's width.
      positions.Row(positions.FlatIndex(i / latent_width, i % latent_width), position.data());
      bf16* row = out.row(i);
      for (int64_t c = 0; c < out.cols; ++c) {
        const float with_time = RoundToBf16(ToFloat(row[c]) + ToFloat(time.data[c]));
        row[c] = ToBf16(with_time + ToFloat(position[c]));
      }
    }
  });
  return absl::OkStatus();
}

}  // namespace lancet
