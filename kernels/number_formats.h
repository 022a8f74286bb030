// The small number formats of block-scaled and 8-bit products, as bit patterns. Conversions round to nearest,
// ties to even, and saturate, like the cvt.rn.satfinite instructions of GPUs.
#pragma once

#include <cstdint>

namespace lancet {

// E2M1: sign, two exponent bits, one mantissa bit; magnitudes 0, 0.5, 1, 1.5, 2, 3, 4, 6. No infinity, no
// NaN.
inline constexpr float kMaxE2m1 = 6.0f;
float FromE2m1(uint8_t code);  // the low four bits count
uint8_t ToE2m1(float x);       // NaN becomes +6, as in hardware

// E4M3: sign, four exponent bits (bias 7), three mantissa bits; exponent 0 means mantissa * 2^-9; no
// infinity, 0x7f and 0xff are NaN.
inline constexpr float kMaxE4m3 = 448.0f;
float FromE4m3(uint8_t byte);
uint8_t ToE4m3(float x);  // NaN becomes 0x7f

}  // namespace lancet
