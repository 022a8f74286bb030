#include "kernels/number_formats.h"

#include <bit>
#include <cmath>
#include <limits>

namespace lancet {

float FromE2m1(uint8_t code) {
  static constexpr float kMagnitude[8] = {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f};
  const float magnitude = kMagnitude[code & 7];
  return (code & 8) != 0 ? -magnitude : magnitude;
}

uint8_t ToE2m1(float x) {
  if (std::isnan(x)) return 7;
  const float magnitude = std::fabs(x);
  // Midpoints between neighbours belong to the even code: below `>=` where the upper one is even.
  const int code = (magnitude > 0.25f) + (magnitude >= 0.75f) + (magnitude > 1.25f) + (magnitude >= 1.75f) +
                   (magnitude > 2.5f) + (magnitude >= 3.5f) + (magnitude > 5.0f);
  return static_cast<uint8_t>(code | (std::signbit(x) ? 8 : 0));
}

float FromE4m3(uint8_t byte) {
  const int exponent = (byte >> 3) & 15;
  const int mantissa = byte & 7;
  float magnitude;
  if ((byte & 0x7f) == 0x7f) {
    magnitude = std::numeric_limits<float>::quiet_NaN();
  } else if (exponent == 0) {
    magnitude = std::ldexp(static_cast<float>(mantissa), -9);
  } else {
    magnitude = std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
  }
  return (byte & 0x80) != 0 ? -magnitude : magnitude;
}

uint8_t ToE4m3(float x) {
  if (std::isnan(x)) return 0x7f;
  const uint8_t sign = std::signbit(x) ? 0x80 : 0;
  const float magnitude = std::fabs(x);
  if (magnitude >= kMaxE4m3) return sign | 0x7e;
  // 2^14 has a step of 2^-9, that of the subnormals: adding it rounds to them, ties to even. A carry into
  // the first normal number adds up by itself.
  if (magnitude < 0x1p-6f) {
    return static_cast<uint8_t>(sign | (std::bit_cast<uint32_t>(magnitude + 0x1p14f) & 15));
  }
  // Three of f32's 23 mantissa bits stay, and the exponent's bias of 127 becomes 7.
  const uint32_t bits = std::bit_cast<uint32_t>(magnitude);
  const uint32_t rounded = (bits + 0x7ffff + ((bits >> 20) & 1)) >> 20;
  return static_cast<uint8_t>(sign | (rounded - ((127 - 7) << 3)));
}

}  // namespace lancet
