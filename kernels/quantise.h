// Plain re-encodings of weights and activations for hardware with small number formats: the definition that
// GPU kernels are checked against bit for bit, and the arithmetic of the CPU's emulation of those GPUs.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "common/bf16.h"
#include "kernels/nvfp4.h"

namespace lancet {

// Block scales as E4M3 bytes under one f32 factor: scale ~ bytes * factor, factor = max(scale) / 448, so that
// they use E4M3's normal range. (A published checkpoint's own scales_fp8 lack the factor: they lie among the
// subnormals.)
struct TwoLevelScales {
  float factor = 1.0f;         // 1 where every scale is zero
  std::vector<uint8_t> bytes;  // as many as scales
};
TwoLevelScales EncodeScales(absl::Span<const bf16> scales);
// Several matrices under one factor: fused projections share the product's alpha.
float ScaleFactor(absl::Span<const bf16> scales);
uint8_t EncodeScale(bf16 scale, float factor);

// One row of activations in NVFP4: per 16 values an E4M3 scale, under one factor for the whole tensor (amax /
// (448 * 6) when it is measured). scale = E4M3(amax of the block / 6 / factor); code = E2M1(x / factor /
// scale), and zero where scale is. x.size() % 16 == 0.
//   codes: [cols / 2] bytes, even column in the low nibble   scales: [cols / 16]
void QuantiseNvfp4Row(absl::Span<const bf16> x, float factor, absl::Span<uint8_t> codes,
                      absl::Span<uint8_t> scales);
float Nvfp4Factor(absl::Span<const bf16> x);  // of a whole tensor; 1 if it is all zeros

// One row of activations in E4M3 with its own factor amax / 448 (1 for a row of zeros). Returns the factor.
float QuantiseFp8Row(absl::Span<const bf16> x, absl::Span<uint8_t> bytes);

// One row of activations as integers from -127 to 127 with its own factor amax / 127: x * (127 / amax),
// rounded to nearest, ties to even. Zeros and factor 1 for a row below 2^-100; zeros and NaN for one that is
// not finite. Returns the factor.
float QuantiseInt8Row(absl::Span<const bf16> x, absl::Span<int8_t> values);

// NVFP4 weights re-encoded to E4M3 with a factor per output row: w ~ bytes * factors[row].
struct Fp8Weights {
  int64_t rows = 0;
  int64_t cols = 0;
  std::vector<uint8_t> bytes;  // [rows, cols]
  std::vector<float> factors;  // [rows]
};
Fp8Weights EncodeFp8Weights(const Nvfp4MatrixView& w);

}  // namespace lancet
