// Quantised activations for the kernels of int8_kernel.h: AVX2 and up; only for sources built with those
// flags, and internal to them.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace lancet {
namespace {

#define LANCET_SIMD_INLINE static inline __attribute__((always_inline))

// The largest magnitude of cols (a multiple of 16) bf16 values, as bits: NaN is above infinity.
LANCET_SIMD_INLINE uint16_t LargestMagnitude16(const uint16_t* x, int64_t cols) {
  const __m256i magnitude = _mm256_set1_epi16(0x7fff);
  __m256i largest = _mm256_setzero_si256();
  for (int64_t i = 0; i < cols; i += 16) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + i));
    largest = _mm256_max_epu16(largest, _mm256_and_si256(bits, magnitude));
  }
  const __m128i half = _mm_max_epu16(_mm256_castsi256_si128(largest), _mm256_extracti128_si256(largest, 1));
  // The least of what is missing to the largest number of 16 bits.
  const __m128i least = _mm_minpos_epu16(_mm_xor_si128(half, _mm_set1_epi16(-1)));
  return static_cast<uint16_t>(~_mm_extract_epi16(least, 0));
}

// round(x * inverse) of 16 values that lie in [-127, 127], in the order of a packed row.
LANCET_SIMD_INLINE __m128i QuantiseBlock16(const uint16_t* x, float inverse) {
  const __m256 factor = _mm256_set1_ps(inverse);
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
  const __m256i low = _mm256_cvtepu16_epi32(_mm256_castsi256_si128(bits));
  const __m256i high = _mm256_cvtepu16_epi32(_mm256_extracti128_si256(bits, 1));
  const __m256 x_low = _mm256_castsi256_ps(_mm256_slli_epi32(low, 16));
  const __m256 x_high = _mm256_castsi256_ps(_mm256_slli_epi32(high, 16));
  const __m256i q_low = _mm256_cvtps_epi32(_mm256_mul_ps(x_low, factor));
  const __m256i q_high = _mm256_cvtps_epi32(_mm256_mul_ps(x_high, factor));
  // Columns 0-3, 8-11 | 4-7, 12-15, each 16 bits.
  const __m256i words = _mm256_packs_epi32(q_low, q_high);
  const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  // Bytes are columns 0-3, 8-11, 4-7, 12-15.
  return _mm_shuffle_epi8(bytes, _mm_setr_epi8(0, 2, 8, 10, 1, 3, 9, 11, 4, 6, 12, 14, 5, 7, 13, 15));
}

// -12 times the sums of a block's values: of the first two bytes of each four in the low 16 bits, of the
// other two in the high ones.
LANCET_SIMD_INLINE uint32_t CorrectionHalves(__m128i bytes) {
  __m128i sums = _mm_maddubs_epi16(_mm_set1_epi8(12), bytes);
  sums = _mm_add_epi16(sums, _mm_srli_si128(sums, 8));
  sums = _mm_add_epi16(sums, _mm_srli_si128(sums, 4));
  return static_cast<uint32_t>(_mm_cvtsi128_si32(_mm_sub_epi16(_mm_setzero_si128(), sums)));
}

// The same as one number.
LANCET_SIMD_INLINE uint32_t CorrectionWhole(__m128i bytes) {
  const uint32_t halves = CorrectionHalves(bytes);
  return static_cast<uint32_t>(static_cast<int16_t>(halves & 0xffff) + static_cast<int16_t>(halves >> 16));
}

#undef LANCET_SIMD_INLINE

}  // namespace
}  // namespace lancet
