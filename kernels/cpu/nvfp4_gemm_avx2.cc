// The NVFP4 product for one instruction set; built with that set's flags (kernels/CMakeLists.txt).
#include "kernels/cpu/nvfp4_kernel_impl.h"
#include "kernels/cpu/simd_avx2.h"

namespace lancet {

Nvfp4Kernel Nvfp4KernelAvx2() { return MakeNvfp4Kernel<SimdAvx2>(); }

}  // namespace lancet
