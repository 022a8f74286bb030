// Attention for one instruction set; built with that set's flags (kernels/CMakeLists.txt).
#include "kernels/cpu/attention_kernel_impl.h"
#include "kernels/cpu/simd_avx2.h"

namespace lancet {

AttentionKernel AttentionKernelAvx2() { return AttentionImpl<SimdAvx2>::Kernel(); }

}  // namespace lancet
