// Vector primitives of AVX-512 (F, BW, VL, DQ), and of AVX-512 with bf16 products: the names of
// simd_portable.h on sixteen lanes. Only for sources built with those flags.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/simd_transpose.h"
#include "kernels/cpu/unroll.h"

#define LANCET_SIMD static inline __attribute__((always_inline))

namespace lancet {
namespace {

struct SimdAvx512 {
  static constexpr int kLanes = 16;
  static constexpr int kUnitCols = 1;
  static constexpr int kTileRows = 8;  // 24 accumulators, three panel vectors, one broadcast of 32 registers
  static constexpr int kTilePanels = 3;
  using F = __m512;

  LANCET_SIMD __mmask16 First(int64_t n) { return static_cast<__mmask16>((1u << n) - 1u); }

  LANCET_SIMD F Set1(float x) { return _mm512_set1_ps(x); }
  LANCET_SIMD F Load(const float* p) { return _mm512_loadu_ps(p); }
  LANCET_SIMD void Store(float* p, F v) { _mm512_storeu_ps(p, v); }
  LANCET_SIMD F LoadN(const float* p, int64_t n) { return _mm512_maskz_loadu_ps(First(n), p); }
  LANCET_SIMD void StoreN(float* p, F v, int64_t n) { _mm512_mask_storeu_ps(p, First(n), v); }
  LANCET_SIMD F Widen(__m256i bits) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
  LANCET_SIMD F LoadBf16(const uint16_t* p) {
    return Widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  LANCET_SIMD F LoadBf16N(const uint16_t* p, int64_t n) {
    return Widen(_mm256_maskz_loadu_epi16(First(n), p));
  }
  // Round to nearest, ties to even; NaN stays NaN. The bits are in the upper half of each lane, the lower
  // half is rubbish.
  LANCET_SIMD __m512i RoundedBits(F v) {
    const __m512i u = _mm512_castps_si512(v);
    const __m512i lsb = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), lsb);
    const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    return _mm512_mask_or_epi32(rounded, nan, u, _mm512_set1_epi32(0x400000));
  }
  LANCET_SIMD F RoundBf16(F v) {
    const __m512i mask = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
    return _mm512_castsi512_ps(_mm512_and_si512(RoundedBits(v), mask));
  }
  LANCET_SIMD __m256i NarrowBf16(F v) { return _mm512_cvtepi32_epi16(_mm512_srli_epi32(RoundedBits(v), 16)); }
  LANCET_SIMD void StoreBf16(uint16_t* p, F v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), NarrowBf16(v));
  }
  LANCET_SIMD void StoreProbability(uint16_t* p, F v) { StoreBf16(p, v); }
  LANCET_SIMD void StoreBf16N(uint16_t* p, F v, int64_t n) {
    _mm256_mask_storeu_epi16(p, First(n), NarrowBf16(v));
  }
  LANCET_SIMD F KeepFirst(F v, int64_t n) { return _mm512_maskz_mov_ps(First(n), v); }
  LANCET_SIMD F Fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  LANCET_SIMD F Max(F a, F b) { return _mm512_max_ps(a, b); }
  LANCET_SIMD F Min(F a, F b) { return _mm512_min_ps(a, b); }
  LANCET_SIMD float ReduceAdd(F v) {
    const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
  }
  LANCET_SIMD float ReduceMax(F v) {
    const __m256 half = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_shuffle_ps(s, s, 1)));
  }
  LANCET_SIMD F RoundInt(F v) {
    return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  LANCET_SIMD F ScaleByNormalPow2(F v, F n) { return ScaleByPow2(v, n); }
  LANCET_SIMD F ScaleByPow2(F v, F n) { return _mm512_scalef_ps(v, n); }

  LANCET_SIMD F LoadUnits(const uint32_t* p) { return _mm512_loadu_ps(p); }
  LANCET_SIMD F BroadcastUnit(const uint32_t* p) {
    return _mm512_castsi512_ps(_mm512_set1_epi32(static_cast<int>(*p)));
  }
  LANCET_SIMD F MulAddUnits(F acc, F a, F b) { return _mm512_fmadd_ps(a, b, acc); }

  // The permutation reads the low four bits of an index: the code.
  LANCET_SIMD F Expand(__m512i codes, F scale) {
    const F values = _mm512_setr_ps(0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f, -0.0f, -0.5f, -1.0f,
                                    -1.5f, -2.0f, -3.0f, -4.0f, -6.0f);
    return _mm512_mul_ps(_mm512_permutexvar_ps(codes, values), scale);
  }
  LANCET_SIMD void PackUnits8(const uint16_t* const* from, int rows, int64_t col, uint32_t* tile,
                              int64_t stride) {
    PackWidened8(from, rows, col, tile, stride);
  }

  template <bool kPlain>
  LANCET_SIMD void ExpandNvfp4(const uint8_t* codes, F scale, uint32_t* units) {
    const F rounded = RoundBf16(_mm512_mul_ps(scale, Set1(1.5f)));
    __m512i bits = _mm512_loadu_si512(codes);
    LANCET_UNROLL
    for (int k = 0; k < 8; ++k) {
      if constexpr (kPlain) {
        const F of_one = _mm512_setr_ps(0.0f, 0.5f, 1.0f, 0.0f, 2.0f, 0.0f, 4.0f, 0.0f, -0.0f, -0.5f, -1.0f,
                                        -0.0f, -2.0f, -0.0f, -4.0f, -0.0f);
        const F of_rounded = _mm512_setr_ps(0.0f, 0.0f, 0.0f, 1.0f, 0.0f, 2.0f, 0.0f, 4.0f, -0.0f, -0.0f,
                                            -0.0f, -1.0f, -0.0f, -2.0f, -0.0f, -4.0f);
        _mm512_storeu_ps(units, _mm512_fmadd_ps(_mm512_permutexvar_ps(bits, of_rounded), rounded,
                                                _mm512_mul_ps(_mm512_permutexvar_ps(bits, of_one), scale)));
      } else {
        _mm512_storeu_ps(units, RoundBf16(Expand(bits, scale)));
      }
      bits = _mm512_srli_epi32(bits, 4);
      units += 16;
    }
  }
};

#if defined(__AVX512BF16__)
// Differs in the products alone: a unit is a pair of bf16. Subnormal operands count as zero there, by the
// instructions' definition.
struct SimdAvx512Bf16 : SimdAvx512 {
  static constexpr int kUnitCols = 2;

  LANCET_SIMD void StoreProbability(uint16_t* p, F v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), (__m256i)_mm512_cvtneps_pbh(v));
  }
  LANCET_SIMD F MulAddUnits(F acc, F a, F b) {
    return _mm512_dpbf16_ps(acc, (__m512bh)_mm512_castps_si512(a), (__m512bh)_mm512_castps_si512(b));
  }
  LANCET_SIMD void PackUnits8(const uint16_t* const* from, int rows, int64_t col, uint32_t* tile,
                              int64_t stride) {
    PackPairs8(from, rows, col, tile, stride);
  }
  template <bool kPlain>
  LANCET_SIMD void ExpandNvfp4(const uint8_t* codes, F scale, uint32_t* units) {
    const __m512i interleave = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8,
                                                23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    __m512i bits = _mm512_loadu_si512(codes);
    LANCET_UNROLL
    for (int pair = 0; pair < 4; ++pair) {
      const F even = Expand(bits, scale);
      const F odd = Expand(_mm512_srli_epi32(bits, 4), scale);
      // 16 even columns, then 16 odd ones; interleaved they are the pairs.
      const __m512i halves = (__m512i)_mm512_cvtne2ps_pbh(odd, even);
      _mm512_storeu_si512(units, _mm512_permutexvar_epi16(interleave, halves));
      bits = _mm512_srli_epi32(bits, 8);
      units += 16;
    }
  }
};
#endif

}  // namespace
}  // namespace lancet
