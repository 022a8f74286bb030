// Stands in for the sources of x86 instruction sets on other processors, which run the portable kernels.
#include "common/bf16.h"
#include "kernels/cpu/attention_kernel.h"
#include "kernels/cpu/bf16_kernel.h"
#include "kernels/cpu/byte_rows_kernel.h"
#include "kernels/cpu/int8_kernel.h"
#include "kernels/cpu/nvfp4_kernel.h"
#include "kernels/cpu/row_kernels.h"
#include "kernels/kernel_context.h"

namespace lancet {

CpuIsa DetectCpuIsa() { return CpuIsa::kPortable; }
bool DetectVnni(CpuIsa /*isa*/) { return false; }
bool Bf16DotsAreFast() { return false; }

AttentionKernel AttentionKernelAvx2() { return AttentionKernelPortable(); }
AttentionKernel AttentionKernelAvx512() { return AttentionKernelPortable(); }
AttentionKernel AttentionKernelAvx512Bf16() { return AttentionKernelPortable(); }
Bf16Kernel Bf16KernelAvx2() { return Bf16KernelPortable(); }
Bf16Kernel Bf16KernelAvx512() { return Bf16KernelPortable(); }
Bf16Kernel Bf16KernelAvx512Bf16() { return Bf16KernelPortable(); }
void ByteRowsAvx2(const ByteRowsArgs& args) { ByteRowsPortable(args); }
Int8Kernel Int8KernelAvx2() { return Int8KernelPortable(); }
Int8Kernel Int8KernelAvxVnni() { return Int8KernelPortable(); }
Int8Kernel Int8KernelAvx512() { return Int8KernelPortable(); }
Int8Kernel Int8KernelAvx512Vnni() { return Int8KernelPortable(); }
Nvfp4Kernel Nvfp4KernelAvx2() { return Nvfp4KernelPortable(); }
Nvfp4Kernel Nvfp4KernelAvx512() { return Nvfp4KernelPortable(); }
Nvfp4Kernel Nvfp4KernelAvx512Bf16() { return Nvfp4KernelPortable(); }
RowKernels RowKernelsAvx2() { return RowKernelsPortable(); }
RowKernels RowKernelsAvx512() { return RowKernelsPortable(); }

}  // namespace lancet
