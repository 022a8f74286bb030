// simd_int8_portable.h on eight lanes: AVX2, where sums are formed in 16 bits, and AVX2 with VNNI. Only for
// sources built with those flags.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/simd_avx2.h"
#include "kernels/cpu/simd_int8_block.h"

namespace lancet {
namespace {

struct Int8Avx2 : SimdAvx2 {
  static constexpr int kTileRows = 8;  // eight sums, four weights, ones, three in between: all 16 registers
  using W = __m256i;

  LANCET_SIMD W LoadWeights(const uint8_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  LANCET_SIMD void StoreWeights(uint8_t* p, W w) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), w); }
  LANCET_SIMD void ExpandCodes(const uint8_t* codes, W* low, W* high) {
    const __m256i weights =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
    const __m256i nibble = _mm256_set1_epi8(15);
    const __m256i bytes = LoadWeights(codes);
    *low = _mm256_shuffle_epi8(weights, _mm256_and_si256(bytes, nibble));
    *high = _mm256_shuffle_epi8(weights, _mm256_and_si256(_mm256_srli_epi16(bytes, 4), nibble));
  }
  LANCET_SIMD F LoadE4m3(const uint8_t* p) {
    const __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
    // The sign goes to bits 31 to 27, of which the mask leaves the first.
    const __m256i bits = _mm256_srai_epi32(_mm256_slli_epi32(bytes, 24), 4);
    const __m256i kept = _mm256_and_si256(bits, _mm256_set1_epi32(static_cast<int>(0x87f00000u)));
    return _mm256_mul_ps(_mm256_castsi256_ps(kept), Set1(0x1p120f));
  }
  LANCET_SIMD __m256i Broadcast(const uint32_t* a) { return _mm256_set1_epi32(static_cast<int>(*a)); }
  // A product of two bytes is below 24 * 127, a pair of them below 2^13, and the sum of the four pairs with
  // their half of the correction, which may wrap around on the way, below 2^14.
  LANCET_SIMD F Dot(const W* w, const uint32_t* a) {
    __m256i sums = Broadcast(a);
    LANCET_UNROLL
    for (int g = 0; g < 4; ++g) {
      sums = _mm256_add_epi16(sums, _mm256_maddubs_epi16(w[g], Broadcast(a + 1 + g)));
    }
    return _mm256_cvtepi32_ps(_mm256_madd_epi16(sums, _mm256_set1_epi16(1)));
  }
  LANCET_SIMD uint16_t LargestMagnitude(const uint16_t* x, int64_t cols) {
    return LargestMagnitude16(x, cols);
  }
  LANCET_SIMD void QuantiseBlock(const uint16_t* x, float inverse, uint32_t* to) {
    const __m128i bytes = QuantiseBlock16(x, inverse);
    to[0] = CorrectionHalves(bytes);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 1), bytes);
  }
};

#if defined(__AVXVNNI__)
struct Int8AvxVnni : Int8Avx2 {
  LANCET_SIMD F Dot(const W* w, const uint32_t* a) {
    __m256i sums = Broadcast(a);
    LANCET_UNROLL
    for (int g = 0; g < 4; ++g) sums = _mm256_dpbusd_avx_epi32(sums, w[g], Broadcast(a + 1 + g));
    return _mm256_cvtepi32_ps(sums);
  }
  LANCET_SIMD void QuantiseBlock(const uint16_t* x, float inverse, uint32_t* to) {
    const __m128i bytes = QuantiseBlock16(x, inverse);
    to[0] = CorrectionWhole(bytes);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 1), bytes);
  }
};
#endif

}  // namespace
}  // namespace lancet
