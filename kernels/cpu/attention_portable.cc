// Attention for one instruction set; built with that set's flags (kernels/CMakeLists.txt).
#include "kernels/cpu/attention_kernel_impl.h"
#include "kernels/cpu/simd_portable.h"

namespace lancet {

AttentionKernel AttentionKernelPortable() { return AttentionImpl<SimdPortable>::Kernel(); }

}  // namespace lancet
