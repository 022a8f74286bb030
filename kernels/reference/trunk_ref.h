// Plain scalar loops in f64: what tests compare the trunk's ops with. Roundings to bf16 are made only where
// an op's contract has one before the last; the last one is left to the test.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "common/bf16.h"
#include "common/tensor_view.h"

namespace lancet::reference {

// Value of one weight: sign * magnitude * scale rounded to bf16. code: 4 bits, see kernels/nvfp4.h.
float Nvfp4Value(int code, bf16 scale);

// [rows, cols] of an NVFP4 matrix as it lies in a file.
std::vector<float> Nvfp4Dequantise(const uint8_t* codes, const bf16* scales, int64_t rows, int64_t cols);

// y = x w^T + bias in f64. w: [rows, cols] dense; bias: [rows] or empty. Returns [tokens, rows].
std::vector<double> Linear(ConstMatrixView<bf16> x, absl::Span<const float> w, int64_t rows,
                           absl::Span<const bf16> bias);

// The sum of |x w| that goes into each element of Linear: what its rounding errors scale with.
std::vector<double> LinearMagnitude(ConstMatrixView<bf16> x, absl::Span<const float> w, int64_t rows);

// w * bf16(x / rms(x)), not rounded at the end. Returns [tokens, dim].
std::vector<double> RmsNorm(ConstMatrixView<bf16> x, absl::Span<const bf16> weight, double eps);

// One head of QkNormRope, not rounded at the end.
std::vector<double> NormRopeHead(absl::Span<const bf16> head, absl::Span<const bf16> weight, double eps,
                                 absl::Span<const bf16> cos, absl::Span<const bf16> sin, bool wide);

// One head of Rope, not rounded at the end.
std::vector<double> RopeHead(absl::Span<const bf16> head, absl::Span<const bf16> cos,
                             absl::Span<const bf16> sin);

double Silu(double x);
double Gelu(double x);  // exact: x Phi(x)

// One query head against keys and values [tokens, head_dim] in f64.
std::vector<double> AttentionRow(absl::Span<const bf16> q, const std::vector<absl::Span<const bf16>>& keys,
                                 const std::vector<absl::Span<const bf16>>& values);

}  // namespace lancet::reference
