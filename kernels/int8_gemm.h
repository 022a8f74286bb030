// The product of NVFP4 weights with activations of eight bits (`w4a8_int8`): what CPUs multiply fastest.
//
// A row of activations becomes integers from -127 to 127 and a factor of its own (kernels/quantise.h), a code
// twice its value, an integer from -12 to 12. Their products are summed over a block of 16 columns as
// integers, so exactly; that times the block's scale, bf16 or E4M3, is exact in f32 as well. Blocks are added
// up in f32 from the first to the last, and the sum is multiplied once with half the row's factor times that
// of the scales.
#pragma once

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/bf16.h"
#include "common/tensor_view.h"
#include "kernels/kernel_context.h"
#include "kernels/nvfp4.h"

namespace lancet {

// y = x * w^T + bias, rounded once to bf16.
//   x: [tokens, cols]   bias: [rows], or empty for none   y: [tokens, rows], must not overlap x
// A row of y depends on that row of x alone, to the bit: not on `tokens`, the number of threads or the
// instruction set. A row of x that is not finite gives a row of NaN. InvalidArgument if shapes disagree.
// tokens or rows may be 0; cols == 0 gives the bias (or zeros).
absl::Status Int8Gemm(const KernelContext& ctx, ConstMatrixView<bf16> x, const Nvfp4Weights& w,
                      absl::Span<const bf16> bias, MatrixView<bf16> y);

// The same without rounding or bias: the partial sums of a row-parallel Linear.
absl::Status Int8Gemm(const KernelContext& ctx, ConstMatrixView<bf16> x, const Nvfp4Weights& w,
                      MatrixView<float> y);

}  // namespace lancet
