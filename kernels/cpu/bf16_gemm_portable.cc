// The product with bf16 weights for one instruction set; built with that set's flags
// (kernels/CMakeLists.txt).
#include "kernels/cpu/bf16_kernel_impl.h"
#include "kernels/cpu/simd_portable.h"

namespace lancet {

Bf16Kernel Bf16KernelPortable() { return MakeBf16Kernel<SimdPortable>(); }

}  // namespace lancet
