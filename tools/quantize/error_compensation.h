// Rounding that makes up for its errors: weights are rounded column by column, and what a column's rounding
// does to the outputs is taken back, as far as it can be, by the columns behind it. What can be is told by
// the inputs' second moments H = sum x xᵀ. The procedure of Frantar et al., "GPTQ" (2022), in blocks whose
// scales are searched for.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/thread_pool.h"
#include "tools/quantize/linear_packing.h"
#include "tools/quantize/source_matrix.h"

namespace lancet {

// U, upper triangular, with UᵀU = (H' + damping * mean of H's diagonal)^-1, H'_ij = xtx_ij / (s_i s_j): row
// by row, [n, n]. s: [n], or empty for ones. InvalidArgument if xtx is not what second moments can be.
absl::StatusOr<std::vector<float>> CompensationMatrix(absl::Span<const float> xtx, absl::Span<const float> s,
                                                      int64_t n, double damping, ThreadPool& pool);

// `u`: of the Linear's inputs divided by s. `largest`: of the scaled weights.
PackedLinear PackCompensated(const SourceMatrix& matrix, absl::Span<const float> s, absl::Span<const float> u,
                             float largest, ThreadPool& pool);

}  // namespace lancet
