// simd_int8_portable.h on sixteen lanes: AVX-512, where sums are formed in 16 bits, and AVX-512 with VNNI.
// Only for sources built with those flags.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/simd_avx512.h"
#include "kernels/cpu/simd_int8_block.h"

namespace lancet {
namespace {

struct Int8Avx512 : SimdAvx512 {
  static constexpr int kTileRows = 12;  // with four weights, a scale and what is in between: of 32 registers
  using W = __m512i;

  LANCET_SIMD W LoadWeights(const uint8_t* p) { return _mm512_loadu_si512(p); }
  LANCET_SIMD void StoreWeights(uint8_t* p, W w) { _mm512_storeu_si512(p, w); }
  LANCET_SIMD void ExpandCodes(const uint8_t* codes, W* low, W* high) {
    const __m512i weights =
        _mm512_broadcast_i32x4(_mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
    const __m512i nibble = _mm512_set1_epi8(15);
    const __m512i bytes = _mm512_loadu_si512(codes);
    *low = _mm512_shuffle_epi8(weights, _mm512_and_si512(bytes, nibble));
    *high = _mm512_shuffle_epi8(weights, _mm512_and_si512(_mm512_srli_epi16(bytes, 4), nibble));
  }
  LANCET_SIMD F LoadE4m3(const uint8_t* p) {
    const __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    // The sign goes to bits 31 to 27, of which the mask leaves the first.
    const __m512i bits = _mm512_srai_epi32(_mm512_slli_epi32(bytes, 24), 4);
    const __m512i kept = _mm512_and_si512(bits, _mm512_set1_epi32(static_cast<int>(0x87f00000u)));
    return _mm512_mul_ps(_mm512_castsi512_ps(kept), Set1(0x1p120f));
  }
  LANCET_SIMD __m512i Broadcast(const uint32_t* a) { return _mm512_set1_epi32(static_cast<int>(*a)); }
  // As on AVX2.
  LANCET_SIMD F Dot(const W* w, const uint32_t* a) {
    __m512i sums = Broadcast(a);
    LANCET_UNROLL
    for (int g = 0; g < 4; ++g) {
      sums = _mm512_add_epi16(sums, _mm512_maddubs_epi16(w[g], Broadcast(a + 1 + g)));
    }
    return _mm512_cvtepi32_ps(_mm512_madd_epi16(sums, _mm512_set1_epi16(1)));
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

#if defined(__AVX512VNNI__)
struct Int8Avx512Vnni : Int8Avx512 {
  LANCET_SIMD F Dot(const W* w, const uint32_t* a) {
    __m512i sums = Broadcast(a);
    LANCET_UNROLL
    for (int g = 0; g < 4; ++g) sums = _mm512_dpbusd_epi32(sums, w[g], Broadcast(a + 1 + g));
    return _mm512_cvtepi32_ps(sums);
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
