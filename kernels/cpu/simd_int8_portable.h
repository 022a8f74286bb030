// What int8_kernel_impl.h is written in, for any machine. The AVX2 and AVX-512 headers offer the same names.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/cpu/simd_portable.h"

namespace lancet {
namespace {

struct Int8Portable : SimdPortable {
  static constexpr int kTileRows = 4;  // rows of a register tile
  // Weights plus 12 of kLanes rows, four columns each.
  struct W {
    uint8_t bytes[4 * kLanes];
  };

  LANCET_SIMD W LoadWeights(const uint8_t* p) {
    W w;
    std::memcpy(&w, p, sizeof(w));
    return w;
  }
  LANCET_SIMD void StoreWeights(uint8_t* p, W w) { std::memcpy(p, &w, sizeof(w)); }

  // kLanes rows of four bytes of codes: twice the values, plus 12, of the low nibbles and of the high ones.
  LANCET_SIMD void ExpandCodes(const uint8_t* codes, W* low, W* high) {
    constexpr uint8_t kWeight[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};
    for (int i = 0; i < 4 * kLanes; ++i) {
      low->bytes[i] = kWeight[codes[i] & 15];
      high->bytes[i] = kWeight[codes[i] >> 4];
    }
  }

  // kLanes E4M3 numbers that are no NaN: sign, exponent and mantissa where f32 has them, but 2^120 too small.
  LANCET_SIMD F LoadE4m3(const uint8_t* p) {
    U bits;
    for (int i = 0; i < kLanes; ++i) {
      bits[i] = static_cast<uint32_t>(p[i] >> 7) << 31 | static_cast<uint32_t>(p[i] & 0x7f) << 20;
    }
    return (F)bits * Set1(0x1p120f);
  }

  // Sums over a block of kLanes rows with one packed row: `a` is the correction and 16 values.
  LANCET_SIMD F Dot(const W* w, const uint32_t* a) {
    const int32_t correction = static_cast<int32_t>(a[0]);
    I sums = {correction, correction, correction, correction};
    for (int g = 0; g < 4; ++g) {
      int8_t x[4];
      std::memcpy(x, a + 1 + g, sizeof(x));
      for (int i = 0; i < kLanes; ++i) {
        const uint8_t* row = w[g].bytes + 4 * i;
        sums[i] += row[0] * x[0] + row[1] * x[1] + row[2] * x[2] + row[3] * x[3];
      }
    }
    return __builtin_convertvector(sums, F);
  }

  // The largest magnitude of cols (a multiple of 16) bf16 values, as bits: NaN is above infinity.
  LANCET_SIMD uint16_t LargestMagnitude(const uint16_t* x, int64_t cols) {
    uint16_t largest = 0;
    for (int64_t i = 0; i < cols; ++i) {
      const uint16_t magnitude = x[i] & 0x7fff;
      largest = magnitude > largest ? magnitude : largest;
    }
    return largest;
  }

  // A block of a packed row: round(x * inverse), which lies in [-127, 127], behind the correction.
  LANCET_SIMD void QuantiseBlock(const uint16_t* x, float inverse, uint32_t* to) {
    int32_t sum = 0;
    int8_t values[16];
    for (int i = 0; i < 16; i += kLanes) {
      const I rounded = __builtin_convertvector(RoundInt(LoadBf16(x + i) * Set1(inverse)), I);
      for (int j = 0; j < kLanes; ++j) {
        const int col = i + j;
        values[col / 8 * 8 + col % 2 * 4 + col / 2 % 4] = static_cast<int8_t>(rounded[j]);
        sum += rounded[j];
      }
    }
    const int32_t correction = -12 * sum;
    std::memcpy(to, &correction, sizeof(correction));
    std::memcpy(to + 1, values, sizeof(values));
  }
};

}  // namespace
}  // namespace lancet
