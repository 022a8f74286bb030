// The row-wise kernels of a context's instruction set.
#pragma once

#include "kernels/cpu/row_kernels.h"
#include "kernels/kernel_context.h"

namespace lancet {

RowKernels RowKernelsFor(CpuIsa isa);

// Rows a thread takes at least: below this much work waking a thread costs more than it saves.
constexpr int64_t MinRows(int64_t cols) { return cols >= 4096 ? 1 : 4096 / (cols > 0 ? cols : 1); }

}  // namespace lancet
