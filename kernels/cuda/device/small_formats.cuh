// E2M1 and E4M3 in device code, equal to kernels/number_formats.h to the bit.
#pragma once

#include <cuda_fp8.h>

#include <cstdint>

namespace lancet::device {

__device__ __forceinline__ float WidenE4m3(uint8_t byte) {
  return __half2float(__half(__nv_cvt_fp8_to_halfraw(byte, __NV_E4M3)));
}
__device__ __forceinline__ uint8_t NarrowE4m3(float x) {
  return static_cast<uint8_t>(__nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3));
}
// Four values to four bytes, the first in the lowest.
__device__ __forceinline__ uint32_t PackE4m3(float a, float b, float c, float d) {
  const uint32_t low = __nv_cvt_float2_to_fp8x2(make_float2(a, b), __NV_SATFINITE, __NV_E4M3);
  const uint32_t high = __nv_cvt_float2_to_fp8x2(make_float2(c, d), __NV_SATFINITE, __NV_E4M3);
  return low | (high << 16);
}

// Two values to a byte, `even` in the low nibble.
__device__ __forceinline__ uint32_t PackE2m1(float even, float odd) {
#if defined(__CUDA_ARCH_FAMILY_SPECIFIC__) || defined(__CUDA_ARCH_SPECIFIC__)
#if __CUDA_ARCH__ >= 1000
  uint32_t packed;
  asm("{\n .reg .b8 pair;\n cvt.rn.satfinite.e2m1x2.f32 pair, %1, %2;\n cvt.u32.u8 %0, pair;\n}"
      : "=r"(packed)
      : "f"(odd), "f"(even));
  return packed;
#endif
#endif
  // Counts midpoints; those that belong to the even code above are reached, the others must be exceeded.
  const auto code = [](float x) {
    const float m = fabsf(x);
    const uint32_t magnitude =
        (m > 0.25f) + (m >= 0.75f) + (m > 1.25f) + (m >= 1.75f) + (m > 2.5f) + (m >= 3.5f) + (m > 5.0f);
    return magnitude | ((__float_as_uint(x) >> 28) & 8u);
  };
  return code(even) | (code(odd) << 4);
}

// Magnitude and sign of a code as bf16 bits, times 2^-126: the exponent bits of E2M1 are put where bf16 has
// its lowest two, so that one multiplication by scale * 2^126 gives the value.
__device__ __forceinline__ float WidenE2m1(uint32_t code) {
  const uint32_t bits = ((code & 8u) << 28) | ((code & 7u) << 22);
  return __uint_as_float(bits) * 0x1p126f;
}

}  // namespace lancet::device
