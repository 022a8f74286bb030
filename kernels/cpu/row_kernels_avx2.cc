// The row-wise steps for one instruction set; built with that set's flags (kernels/CMakeLists.txt).
#include "kernels/cpu/row_kernels_impl.h"
#include "kernels/cpu/simd_avx2.h"

namespace lancet {

RowKernels RowKernelsAvx2() { return RowImpl<SimdAvx2>::Kernels(); }

}  // namespace lancet
