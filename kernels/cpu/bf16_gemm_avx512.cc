// The product with bf16 weights for one instruction set; built with that set's flags
// (kernels/CMakeLists.txt).
#include "kernels/cpu/bf16_kernel_impl.h"
#include "kernels/cpu/simd_avx512.h"

namespace lancet {

Bf16Kernel Bf16KernelAvx512() { return MakeBf16Kernel<SimdAvx512>(); }

}  // namespace lancet
