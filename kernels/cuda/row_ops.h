// Steps on rows between the products of a layer. Every function enqueues on `stream` and returns the launch's
// error; shapes were checked by the caller (worker/cuda). Rows are 16-byte aligned, widths multiples of 16 up
// to kMaxRowCols and row strides multiples of 8. A row's result depends on that row alone, to the bit.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "common/bf16.h"

namespace lancet::cuda {

// Where a fused step puts rows of `cols` values: as bf16, or quantised for the product that reads them.
struct RowOutput {
  // Exactly one of the three pointers is set.
  bf16* bf16_rows = nullptr;      // [rows, cols] dense
  uint8_t* fp8_rows = nullptr;    // [rows, cols] E4M3, with fp8_factors [rows]: value = byte * factor
  float* fp8_factors = nullptr;   // amax of the row / 448; 1 for a row of zeros
  uint8_t* fp4_codes = nullptr;   // [rows, cols / 2] E2M1 pairs, even column in the low nibble
  uint8_t* fp4_scales = nullptr;  // E4M3 per 16 columns, tiled (kernels/scale_tiles.h); padding is left alone
  const float* fp4_factor = nullptr;  // device: the tensor's factor; value = code * scale * factor
};

// Widest row: one is kept in registers between passes. cudaErrorInvalidValue beyond.
inline constexpr int64_t kMaxRowCols = 16384;

// y = weight * bf16(x * rsqrt(mean(x^2) + eps)), f32 inside, rounded before and after the weight.
cudaError_t RmsNorm(const bf16* x, int64_t x_stride, const bf16* weight, float eps, int64_t rows,
                    int64_t cols, const RowOutput& y, cudaStream_t stream);

// y = bf16(bf16(silu(gate)) * up). gate_up: [rows, 2 cols], in turns of kGateUpTurn (few_rows_linear.h).
cudaError_t SiluMul(const bf16* gate_up, int64_t rows, int64_t cols, const RowOutput& y, cudaStream_t stream);

// The quantisation alone. x: [rows, cols] with a stride.
cudaError_t QuantiseRows(const bf16* x, int64_t x_stride, int64_t rows, int64_t cols, const RowOutput& y,
                         cudaStream_t stream);

// x = bf16(silu(x)) over n values.
cudaError_t Silu(bf16* x, int64_t n, cudaStream_t stream);

// x = bf16(x + bf16(delta)); delta: f32 sums.
cudaError_t AddResidual(const float* delta, int64_t n, bf16* x, cudaStream_t stream);

// *factor = amax(x) / (448 * 6) over a whole tensor, 1 if it is all zeros: the dynamic factor of fp4 output.
// `scratch`: kAmaxBlocks floats.
inline constexpr int kAmaxBlocks = 256;
cudaError_t Nvfp4Factor(const bf16* x, int64_t n, float* scratch, float* factor, cudaStream_t stream);

}  // namespace lancet::cuda
