// The NVFP4 product for one instruction set; built with that set's flags (kernels/CMakeLists.txt).
#include "kernels/cpu/nvfp4_kernel_impl.h"
#include "kernels/cpu/simd_portable.h"

namespace lancet {

Nvfp4Kernel Nvfp4KernelPortable() { return MakeNvfp4Kernel<SimdPortable>(); }

}  // namespace lancet
