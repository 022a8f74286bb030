// Rotary embedding in place, for q and for k: alone, or after a per-head RMS normalisation.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/bf16.h"
#include "common/tensor_view.h"
#include "kernels/kernel_context.h"

namespace lancet {

// x: [tokens, heads * head_dim], each head normalised over head_dim with `weight` [head_dim], then rotated
// (rotate-half):
//   out[f] = x[f] cos[f] - x[f + d/2] sin[f],  out[f + d/2] = x[f + d/2] cos[f] + x[f] sin[f],  f < d/2
//   cos, sin: [tokens, head_dim / 2] bf16
// wide_rows[i] != 0: row i stays in f32 from the projection to the one rounding at the end (rows of blocks
// that hold latents). Otherwise every step rounds to bf16: normalised value, times weight, each product,
// their sum (text rows).
absl::Status QkNormRope(const KernelContext& ctx, MatrixView<bf16> x, int64_t heads,
                        absl::Span<const bf16> weight, float eps, ConstMatrixView<bf16> cos,
                        ConstMatrixView<bf16> sin, absl::Span<const uint8_t> wide_rows);

// The same rotation of every head without a norm before it, in f32 with one rounding at the end.
//   x: [tokens, heads * head_dim]   cos, sin: [tokens, head_dim / 2]
absl::Status Rope(const KernelContext& ctx, MatrixView<bf16> x, int64_t heads, ConstMatrixView<bf16> cos,
                  ConstMatrixView<bf16> sin);

}  // namespace lancet
