// Row-wise steps (norms, rotation, activations) per instruction set: one row, or one head of one row, a call.
// Plain data and function pointers only, as in nvfp4_kernel.h; bf16 values are bit patterns. The public
// headers (rms_norm.h, rope.h, activation.h) say what each computes.
#pragma once

#include <cstdint>

namespace lancet {

struct RowKernels {
  void (*rms_norm)(const uint16_t* x, const uint16_t* weight, float eps, int64_t dim, uint16_t* y) = nullptr;
  // One head, in place. cos, sin: [head_dim / 2].
  void (*norm_rope)(uint16_t* head, const uint16_t* weight, float eps, const uint16_t* cos,
                    const uint16_t* sin, int64_t head_dim, bool wide) = nullptr;
  // The rotation alone, from f32 to one rounding. One head, in place.
  void (*rope)(uint16_t* head, const uint16_t* cos, const uint16_t* sin, int64_t head_dim) = nullptr;
  void (*silu_mul)(const uint16_t* gate, const uint16_t* up, int64_t n, uint16_t* y) = nullptr;
  void (*silu)(uint16_t* x, int64_t n) = nullptr;
  void (*gelu)(uint16_t* x, int64_t n) = nullptr;
  void (*add_residual)(const float* delta, int64_t n, uint16_t* x) = nullptr;
  void (*add_biased_residual)(const float* delta, const uint16_t* bias, int64_t n, uint16_t* x) = nullptr;
  void (*add_bias)(const float* sums, const uint16_t* bias, int64_t n, uint16_t* y) = nullptr;
  // The exponential that SiLU and softmax use (simd_math.h), bare, in place.
  void (*exp)(float* x, int64_t n) = nullptr;
};

RowKernels RowKernelsPortable();
RowKernels RowKernelsAvx2();
RowKernels RowKernelsAvx512();

}  // namespace lancet
