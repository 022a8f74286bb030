// The row-wise steps for one instruction set; built with that set's flags (kernels/CMakeLists.txt).
#include "kernels/cpu/row_kernels_impl.h"
#include "kernels/cpu/simd_avx512.h"

namespace lancet {

RowKernels RowKernelsAvx512() { return RowImpl<SimdAvx512>::Kernels(); }

}  // namespace lancet
