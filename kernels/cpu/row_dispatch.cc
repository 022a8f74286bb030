#include "kernels/cpu/row_dispatch.h"

namespace lancet {

RowKernels RowKernelsFor(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kAvx512Bf16:  // its extra instructions have no use here
    case CpuIsa::kAvx512:
      return RowKernelsAvx512();
    case CpuIsa::kAvx2:
      return RowKernelsAvx2();
    case CpuIsa::kPortable:
      break;
  }
  return RowKernelsPortable();
}

}  // namespace lancet
