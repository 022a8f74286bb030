// What an x86-64 processor has of what kernels are built for.
#include <cpuid.h>

#include "kernels/kernel_context.h"

namespace lancet {

CpuIsa DetectCpuIsa() {
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return CpuIsa::kPortable;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512dq")) {
    return CpuIsa::kAvx2;
  }
  return __builtin_cpu_supports("avx512bf16") ? CpuIsa::kAvx512Bf16 : CpuIsa::kAvx512;
}

bool DetectVnni(CpuIsa isa) {
  // Read from the processor: compilers do not agree on names for these two.
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (isa > DetectCpuIsa() || isa == CpuIsa::kPortable) return false;
  if (isa >= CpuIsa::kAvx512) {
    return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (ecx >> 11 & 1) != 0;  // AVX512_VNNI
  }
  return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax >> 4 & 1) != 0;  // AVX-VNNI
}

bool Bf16DotsAreFast() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (DetectCpuIsa() < CpuIsa::kAvx512Bf16) return false;
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (edx >> 22 & 1) == 0;  // AMX-BF16
}

}  // namespace lancet
