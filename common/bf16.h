// bfloat16 as its bit pattern: storage only, arithmetic happens in f32.
#pragma once

#include <bit>
#include <cstdint>

namespace lancet {

// The upper half of an IEEE f32. An own type, so that a bf16 is never mistaken for a uint16.
struct bf16 {
  uint16_t bits = 0;
  friend bool operator==(bf16 a, bf16 b) { return a.bits == b.bits; }
};
static_assert(sizeof(bf16) == 2);

inline float ToFloat(bf16 x) { return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }

// Round to nearest, ties to even; NaN stays a (quiet) NaN.
inline bf16 ToBf16(float x) {
  const uint32_t u = std::bit_cast<uint32_t>(x);
  if ((u & 0x7fffffffu) > 0x7f800000u) {
    return bf16{static_cast<uint16_t>((u >> 16) | 0x40u)};
  }
  return bf16{static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
}

inline float RoundToBf16(float x) { return ToFloat(ToBf16(x)); }

}  // namespace lancet
