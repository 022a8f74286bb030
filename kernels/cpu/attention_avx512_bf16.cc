// Attention for one instruction set; built with that set's flags (kernels/CMakeLists.txt).
#include "kernels/cpu/attention_kernel_impl.h"
#include "kernels/cpu/simd_avx512.h"

namespace lancet {

AttentionKernel AttentionKernelAvx512Bf16() { return AttentionImpl<SimdAvx512Bf16>::Kernel(); }

}  // namespace lancet
