// How latents enter the trunk: vae2llm(z) + time embedding + position table, each sum rounded to bf16.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "common/bf16.h"
#include "common/tensor_view.h"
#include "kernels/kernel_context.h"
#include "worker/model/trunk_weights.h"

namespace lancet {

// The sinusoidal table of latent positions, recomputed as the model does (a stored latent_pos_embed is
// ignored). Width H is split into thirds rounded down to even for t and h, the rest for w; each part holds
// sines, then cosines, of position / 10000^(j / (part / 2)).
class LatentPositionTable {
 public:
  LatentPositionTable(int64_t width, int64_t max_side);

  // The row of flat index t * max_side^2 + y * max_side + x. Indices are decoded from the flat value, so a
  // picture wider than max_side spills into the next line exactly as in the reference. 0 <= index <
  // max_side^3.
  void Row(int64_t index, bf16* out) const;
  // Of a single picture's latent at line y, column x.
  int64_t FlatIndex(int64_t y, int64_t x) const { return y * max_side_ + x; }

  // The table in parts, for devices: [max_side, extent_th] of the axes t and h, [max_side, width - 2 extent_th] of w.
  int64_t extent_th() const { return extent_th_; }
  const std::vector<bf16>& by_position() const { return by_position_; }
  const std::vector<bf16>& by_position_w() const { return by_position_w_; }

 private:
  std::vector<bf16> Part(int64_t extent, int64_t position) const;

  int64_t width_;
  int64_t max_side_;
  int64_t extent_th_;                // columns of the t part and of the h part
  std::vector<bf16> by_position_;    // [max_side, extent_th_]: t and h parts are alike
  std::vector<bf16> by_position_w_;  // [max_side, width - 2 extent_th_]
};

// Sinusoid features of a time in [0, 1]: cos(t phi_k), then sin(t phi_k), phi_k = 10000^(-k / (n / 2)); f32.
std::vector<float> TimeFeatures(float t, int64_t num_features);

// The time embedding [1, H]: MLP of the bf16-rounded features.
absl::Status EmbedTime(const KernelContext& ctx, const TrunkWeights& weights, float t, MatrixView<bf16> out);

// out[i] = vae2llm(latents[i]) + time + positions.Row(index of row i), latents row by row in a picture
// `latent_width` wide.
//   latents: [n, 48]   time: [1, H]   out: [n, H]
absl::Status EmbedLatents(const KernelContext& ctx, const TrunkWeights& weights,
                          const LatentPositionTable& positions, ConstMatrixView<bf16> latents,
                          int64_t latent_width, ConstMatrixView<bf16> time, MatrixView<bf16> out);

}  // namespace lancet
