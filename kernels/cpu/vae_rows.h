// Inner loops of the decoder's element-wise steps, built once per instruction set from vae_rows_inl.h and
// chosen at run time.
#pragma once

#include <cstdint>

#include "common/bf16.h"
#include "kernels/kernel_context.h"

namespace lancet {

struct VaeRows {
  // `pixels` rows of `channels`: y = act(x / max(|x|, 1e-12) * scaled_gamma), scaled_gamma = sqrt(channels) *
  // gamma. x and y may be the same memory.
  void (*channel_norm)(const bf16* x, int64_t pixels, int64_t channels, const float* scaled_gamma, bool silu,
                       bf16* y);
  // y[i] += x[i].
  void (*add)(const bf16* x, int64_t count, bf16* y);
  void (*widen)(const bf16* x, int64_t count, float* y);
  // y[i] = x[i], or y[i] += x[i] with `accumulate`, rounded once.
  void (*round)(const float* x, int64_t count, bool accumulate, bf16* y);
  // probabilities = softmax(scale * scores) of one row; overwrites scores.
  void (*softmax)(float* scores, int64_t count, float scale, bf16* probabilities);
  // In place.
  void (*softmax_f32)(float* scores, int64_t count, float scale);
};

VaeRows VaeRowsPortable();
VaeRows VaeRowsAvx2();
VaeRows VaeRowsAvx512();

inline VaeRows VaeRowsFor(CpuIsa isa) {
  if (isa >= CpuIsa::kAvx512) return VaeRowsAvx512();
  if (isa >= CpuIsa::kAvx2) return VaeRowsAvx2();
  return VaeRowsPortable();
}

}  // namespace lancet
