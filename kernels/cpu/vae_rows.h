// Inner loops of the decoder's element-wise steps, built once per instruction set from vae_rows_inl.h and
// chosen at run time.
#pragma once

#include <cstdint>

#include "common/bf16.h"
#include "kernels/kernel_context.h"

namespace lancet {

// The loops for activations of type T (float or bf16).
template <typename T>
struct VaeRows {
  // `pixels` rows of `channels`: y = act(x / max(|x|, 1e-12) * scaled_gamma), scaled_gamma = sqrt(channels) *
  // gamma. x and y may be the same memory.
  void (*channel_norm)(const T* x, int64_t pixels, int64_t channels, const float* scaled_gamma, bool silu,
                       T* y);
  // y[i] += x[i].
  void (*add)(const T* x, int64_t count, T* y);
  // probabilities = softmax(scale * scores) of one row; overwrites scores.
  void (*softmax)(float* scores, int64_t count, float scale, T* probabilities);
};

template <typename T>
VaeRows<T> VaeRowsPortable();
template <typename T>
VaeRows<T> VaeRowsAvx2();
template <typename T>
VaeRows<T> VaeRowsAvx512();

template <typename T>
VaeRows<T> VaeRowsFor(CpuIsa isa) {
  if (isa >= CpuIsa::kAvx512) return VaeRowsAvx512<T>();
  if (isa >= CpuIsa::kAvx2) return VaeRowsAvx2<T>();
  return VaeRowsPortable<T>();
}

}  // namespace lancet
