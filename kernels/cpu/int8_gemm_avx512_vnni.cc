// The product of int8_kernel.h for one instruction set; built with that set's flags (kernels/CMakeLists.txt).
#include "kernels/cpu/int8_kernel_impl.h"
#include "kernels/cpu/simd_int8_avx512.h"

namespace lancet {

Int8Kernel Int8KernelAvx512Vnni() { return MakeInt8Kernel<Int8Avx512Vnni>(); }

}  // namespace lancet
