// Element-wise steps of the trunk and the vision tower.
#pragma once

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/bf16.h"
#include "common/tensor_view.h"
#include "kernels/kernel_context.h"

namespace lancet {

// y = bf16(bf16(silu(gate)) * up). gate_up: [tokens, 2 * n], gate in the first n columns; y: [tokens, n].
absl::Status SiluMul(const KernelContext& ctx, ConstMatrixView<bf16> gate_up, MatrixView<bf16> y);

// x = bf16(silu(x)), in place.
absl::Status Silu(const KernelContext& ctx, MatrixView<bf16> x);

// x = bf16(gelu(x)), in place, with the exact (erf) GELU x Phi(x).
absl::Status Gelu(const KernelContext& ctx, MatrixView<bf16> x);

// y = bf16(sums + bias): the one rounding of a Linear whose f32 sums were added over ranks first.
//   sums, y: [tokens, n]   bias: [n]
absl::Status AddBias(const KernelContext& ctx, ConstMatrixView<float> sums, absl::Span<const bf16> bias,
                     MatrixView<bf16> y);

// x = bf16(x + bf16(delta + bias)). x, delta: [tokens, n]   bias: [n]
absl::Status AddResidual(const KernelContext& ctx, ConstMatrixView<float> delta, absl::Span<const bf16> bias,
                         MatrixView<bf16> x);

// x = bf16(x + bf16(delta)). x: [tokens, n]; delta: [tokens, n] f32 sums.
absl::Status AddResidual(const KernelContext& ctx, ConstMatrixView<float> delta, MatrixView<bf16> x);

}  // namespace lancet
