// IEEE half precision as its bit pattern: some files store weights so.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace lancet {

inline float HalfToFloat(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16;
  const int exponent = (h >> 10) & 31;
  const uint32_t mantissa = h & 1023u;
  if (exponent == 0) {
    const float value = std::ldexp(static_cast<float>(mantissa), -24);
    return sign != 0 ? -value : value;
  }
  const uint32_t wide = exponent == 31 ? 255u : static_cast<uint32_t>(exponent) + 112u;
  return std::bit_cast<float>(sign | (wide << 23) | (mantissa << 13));
}

}  // namespace lancet
