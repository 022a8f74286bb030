// RMS normalisation of rows.
#pragma once

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/bf16.h"
#include "common/tensor_view.h"
#include "kernels/kernel_context.h"

namespace lancet {

// y = w * bf16(x * rsqrt(mean(x^2) + eps)), f32 inside, rounded to bf16 before and after the weight.
//   x, y: [tokens, dim], may be the same memory   weight: [dim]
absl::Status RmsNorm(const KernelContext& ctx, ConstMatrixView<bf16> x, absl::Span<const bf16> weight,
                     float eps, MatrixView<bf16> y);

}  // namespace lancet
