// The product of int8_kernel.h for one instruction set; built with that set's flags (kernels/CMakeLists.txt).
#include "kernels/cpu/int8_kernel_impl.h"
#include "kernels/cpu/simd_int8_portable.h"

namespace lancet {

Int8Kernel Int8KernelPortable() { return MakeInt8Kernel<Int8Portable>(); }

}  // namespace lancet
