// The row-wise steps for one instruction set; built with that set's flags (kernels/CMakeLists.txt).
#include "kernels/cpu/row_kernels_impl.h"
#include "kernels/cpu/simd_portable.h"

namespace lancet {

RowKernels RowKernelsPortable() { return RowImpl<SimdPortable>::Kernels(); }

}  // namespace lancet
