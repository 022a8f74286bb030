// bf16 in device code: conversions that round like common/bf16.h, 16-byte vectors of eight values.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "common/bf16.h"

namespace lancet::device {

__device__ __forceinline__ float Widen(bf16 x) {
  return __uint_as_float(static_cast<uint32_t>(x.bits) << 16);
}
__device__ __forceinline__ bf16 Narrow(float x) { return bf16{__bfloat16_as_ushort(__float2bfloat16_rn(x))}; }
__device__ __forceinline__ float Round(float x) { return Widen(Narrow(x)); }

__device__ __forceinline__ float LowHalf(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float HighHalf(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }
// Rounds two values; `low` in the low half.
__device__ __forceinline__ uint32_t PackPair(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// Eight values. The pointer is 16-byte aligned.
struct Vec8 {
  float v[8];
};
__device__ __forceinline__ Vec8 Load8(const bf16* p) {
  const uint4 raw = *reinterpret_cast<const uint4*>(p);
  return {{LowHalf(raw.x), HighHalf(raw.x), LowHalf(raw.y), HighHalf(raw.y), LowHalf(raw.z), HighHalf(raw.z),
           LowHalf(raw.w), HighHalf(raw.w)}};
}
__device__ __forceinline__ void Store8(bf16* p, const Vec8& x) {
  *reinterpret_cast<uint4*>(p) = make_uint4(PackPair(x.v[0], x.v[1]), PackPair(x.v[2], x.v[3]),
                                            PackPair(x.v[4], x.v[5]), PackPair(x.v[6], x.v[7]));
}

// The quotient is approximate (2 ulp): what comes of it is rounded to bf16.
__device__ __forceinline__ float SiluOf(float x) { return __fdividef(x, 1.0f + __expf(-x)); }

// Products of two pairs, rounded once each.
__device__ __forceinline__ uint32_t MulPair(uint32_t a, uint32_t b) {
  uint32_t d;
  // a * b + (-0): exact before the one rounding, and keeps the sign of zeros.
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(0x80008000u));
  return d;
}

}  // namespace lancet::device
