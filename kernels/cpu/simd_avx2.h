// Vector primitives of AVX2 with FMA: the names of simd_portable.h on eight lanes. Only for sources built
// with -mavx2 -mfma.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "kernels/cpu/simd_transpose.h"
#include "kernels/cpu/unroll.h"

#define LANCET_SIMD static inline __attribute__((always_inline))

namespace lancet {
namespace {

struct SimdAvx2 {
  static constexpr int kLanes = 8;
  static constexpr int kUnitCols = 1;
  static constexpr int kTileRows =
      6;  // 12 accumulators, two panel vectors, one broadcast: 15 of 16 registers
  static constexpr int kTilePanels = 1;
  using F = __m256;

  LANCET_SIMD F Set1(float x) { return _mm256_set1_ps(x); }
  LANCET_SIMD F Load(const float* p) { return _mm256_loadu_ps(p); }
  LANCET_SIMD void Store(float* p, F v) { _mm256_storeu_ps(p, v); }
  LANCET_SIMD F LoadBf16(const uint16_t* p) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  }
  LANCET_SIMD F LoadBf16N(const uint16_t* p, int64_t n) {
    alignas(16) uint16_t padded[8] = {};
    for (int i = 0; i < n; ++i) padded[i] = p[i];
    return LoadBf16(padded);
  }
  LANCET_SIMD __m256i RoundedBits(F v) {
    const __m256i u = _mm256_castps_si256(v);
    const __m256i lsb = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), lsb);
    const __m256i quiet = _mm256_or_si256(u, _mm256_set1_epi32(0x400000));
    const __m256 nan = _mm256_cmp_ps(v, v, _CMP_UNORD_Q);
    const __m256i picked = _mm256_blendv_epi8(rounded, quiet, _mm256_castps_si256(nan));
    return _mm256_and_si256(picked, _mm256_set1_epi32(static_cast<int>(0xffff0000u)));
  }
  LANCET_SIMD F RoundBf16(F v) { return _mm256_castsi256_ps(RoundedBits(v)); }
  LANCET_SIMD void StoreBf16(uint16_t* p, F v) {
    const __m256i u = _mm256_srli_epi32(RoundedBits(v), 16);
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(u, u), 0x08);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(packed));
  }
  // For values whose rounding cannot overflow into the sign: not NaN with a payload in the low half.
  LANCET_SIMD void StoreProbability(uint16_t* p, F v) {
    const __m256i u = _mm256_castps_si256(v);
    const __m256i lsb = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), lsb);
    const __m256i high = _mm256_srli_epi32(rounded, 16);
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(high, high), 0x08);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(packed));
  }
  LANCET_SIMD void StoreBf16N(uint16_t* p, F v, int64_t n) {
    alignas(16) uint16_t padded[8];
    StoreBf16(padded, v);
    for (int i = 0; i < n; ++i) p[i] = padded[i];
  }
  LANCET_SIMD F LoadN(const float* p, int64_t n) {
    alignas(32) float padded[8] = {};
    for (int i = 0; i < n; ++i) padded[i] = p[i];
    return Load(padded);
  }
  LANCET_SIMD void StoreN(float* p, F v, int64_t n) {
    alignas(32) float padded[8];
    Store(padded, v);
    for (int i = 0; i < n; ++i) p[i] = padded[i];
  }
  LANCET_SIMD F KeepFirst(F v, int64_t n) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i keep = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), lane);
    return _mm256_and_ps(v, _mm256_castsi256_ps(keep));
  }
  LANCET_SIMD F Fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  LANCET_SIMD F Max(F a, F b) { return _mm256_max_ps(a, b); }
  LANCET_SIMD F Min(F a, F b) { return _mm256_min_ps(a, b); }
  LANCET_SIMD float ReduceAdd(F v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
  }
  LANCET_SIMD float ReduceMax(F v) {
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_shuffle_ps(s, s, 1)));
  }
  LANCET_SIMD F RoundInt(F v) { return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  LANCET_SIMD F Exp2Int(F n) {
    const __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23));
  }
  LANCET_SIMD F ScaleByNormalPow2(F v, F n) { return v * Exp2Int(n); }
  LANCET_SIMD F ScaleByPow2(F v, F n) {
    const F first = RoundInt(n * Set1(0.5f));
    return v * Exp2Int(first) * Exp2Int(n - first);
  }

  LANCET_SIMD F LoadUnits(const uint32_t* p) { return _mm256_loadu_ps(reinterpret_cast<const float*>(p)); }
  LANCET_SIMD F BroadcastUnit(const uint32_t* p) {
    return _mm256_broadcast_ss(reinterpret_cast<const float*>(p));
  }
  LANCET_SIMD F MulAddUnits(F acc, F a, F b) { return _mm256_fmadd_ps(a, b, acc); }
  LANCET_SIMD void PackUnits8(const uint16_t* const* from, int rows, int64_t col, uint32_t* tile,
                              int64_t stride) {
    PackWidened8(from, rows, col, tile, stride);
  }

  template <bool kPlain>
  LANCET_SIMD void ExpandNvfp4(const uint8_t* codes, F scale, uint32_t* units) {
    const __m256i sign = _mm256_set1_epi32(static_cast<int>(0x80000000u));
    const F rounded = RoundBf16(scale * Set1(1.5f));
    __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes));
    LANCET_UNROLL
    for (int k = 0; k < 8; ++k) {
      // The permutation reads the low three bits of an index; bit 3 of a code becomes the sign.
      F value;
      if constexpr (kPlain) {
        const F of_one = _mm256_setr_ps(0.0f, 0.5f, 1.0f, 0.0f, 2.0f, 0.0f, 4.0f, 0.0f);
        const F of_rounded = _mm256_setr_ps(0.0f, 0.0f, 0.0f, 1.0f, 0.0f, 2.0f, 0.0f, 4.0f);
        value = _mm256_fmadd_ps(_mm256_permutevar8x32_ps(of_rounded, bits), rounded,
                                _mm256_mul_ps(_mm256_permutevar8x32_ps(of_one, bits), scale));
      } else {
        const F magnitudes = _mm256_setr_ps(0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f);
        value = RoundBf16(_mm256_mul_ps(_mm256_permutevar8x32_ps(magnitudes, bits), scale));
      }
      const F code_sign = _mm256_castsi256_ps(_mm256_and_si256(_mm256_slli_epi32(bits, 28), sign));
      _mm256_storeu_ps(reinterpret_cast<float*>(units), _mm256_xor_ps(value, code_sign));
      bits = _mm256_srli_epi32(bits, 4);
      units += 16;
    }
  }
};

}  // namespace
}  // namespace lancet
