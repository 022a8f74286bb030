// Products in the arithmetic of GPUs with units for small number formats, on any CPU: anyone can see what
// that arithmetic does to a model. kernels/quantise.h defines the formats; a GPU's sums differ in their
// order alone.
//
// Operands are quantised, then expanded to bf16 without a rounding (E2M1 has 2 significant bits, E4M3 has 4,
// their product at most 6, and both exponents lie well inside bf16's), multiplied by the kernels of bf16
// activations with sums in f32, and scaled by the factors in f32.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/bf16.h"
#include "common/tensor_view.h"
#include "kernels/bf16_gemm.h"
#include "kernels/kernel_context.h"
#include "kernels/nvfp4.h"

namespace lancet {

// The weights of one Linear, or of several with the same input stacked by rows, re-encoded.
class EmulatedWeights {
 public:
  // W4A4: codes as they are, block scales as E4M3 under one factor over all parts (EncodeScales, unless
  // `weight_factor` is another than 0), activations as NVFP4 under `activation_factor` (QuantiseNvfp4Row). As
  // many bytes as Nvfp4Weights. InvalidArgument for parts that Nvfp4Weights refuses, and unless factors are
  // positive and finite.
  static absl::StatusOr<EmulatedWeights> EncodeNvfp4(const KernelContext& ctx,
                                                     absl::Span<const Nvfp4MatrixView> parts,
                                                     float activation_factor, float weight_factor = 0.0f);
  // FP8: weights as E4M3 with a factor per output row (EncodeFp8Weights), activations as E4M3 with a factor
  // per row (QuantiseFp8Row). Kept as bf16, two bytes a weight. InvalidArgument as above.
  static absl::StatusOr<EmulatedWeights> EncodeFp8(const KernelContext& ctx,
                                                   absl::Span<const Nvfp4MatrixView> parts);

  EmulatedWeights() = default;
  int64_t rows() const { return is_fp8_ ? fp8_.rows() : nvfp4_.rows(); }
  int64_t cols() const { return is_fp8_ ? fp8_.cols() : nvfp4_.cols(); }

  // Read by EmulatedGemm.
  bool is_fp8() const { return is_fp8_; }
  const Nvfp4Weights& nvfp4() const { return nvfp4_; }  // block scales are E4M3 values, without the factor
  float alpha() const { return alpha_; }                // the weights' factor times the activations'
  float activation_factor() const { return activation_factor_; }
  const Bf16Weights& fp8() const { return fp8_; }
  const std::vector<float>& row_factors() const { return row_factors_; }  // of fp8, [rows]

 private:
  bool is_fp8_ = false;
  Nvfp4Weights nvfp4_;
  float alpha_ = 1.0f;
  float activation_factor_ = 1.0f;
  Bf16Weights fp8_;
  std::vector<float> row_factors_;
};

// y = x * w^T + bias, rounded once to bf16.
//   x: [tokens, cols]   bias: [rows], or empty for none   y: [tokens, rows], must not overlap x
// A row of y depends on that row of x alone, to the bit: not on `tokens`, nor on the number of threads.
// InvalidArgument if shapes disagree.
absl::Status EmulatedGemm(const KernelContext& ctx, ConstMatrixView<bf16> x, const EmulatedWeights& w,
                          absl::Span<const bf16> bias, MatrixView<bf16> y);

// The same without rounding or bias: the partial sums of a row-parallel Linear.
absl::Status EmulatedGemm(const KernelContext& ctx, ConstMatrixView<bf16> x, const EmulatedWeights& w,
                          MatrixView<float> y);

}  // namespace lancet
