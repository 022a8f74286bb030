// An 8 x 8 transposition of four-byte units, for packing rows into tiles. AVX2 and up; only for sources built
// with those flags, and internal to them.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace lancet {
namespace {

// Unit u of rows[m] goes to tile[u * stride + m]; all 8 units from tile[u * stride] on are written, in the
// order of u.
static inline __attribute__((always_inline)) void StoreTransposed8(const __m256i* rows, uint32_t* tile,
                                                                   int64_t stride) {
  __m256i pairs[8];
  for (int i = 0; i < 8; i += 2) {
    pairs[i] = _mm256_unpacklo_epi32(rows[i], rows[i + 1]);
    pairs[i + 1] = _mm256_unpackhi_epi32(rows[i], rows[i + 1]);
  }
  __m256i quads[8];
  for (int i = 0; i < 8; i += 4) {
    quads[i] = _mm256_unpacklo_epi64(pairs[i], pairs[i + 2]);
    quads[i + 1] = _mm256_unpackhi_epi64(pairs[i], pairs[i + 2]);
    quads[i + 2] = _mm256_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
    quads[i + 3] = _mm256_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(tile + i * stride),
                        _mm256_permute2x128_si256(quads[i], quads[i + 4], 0x20));
  }
  for (int i = 0; i < 4; ++i) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(tile + (i + 4) * stride),
                        _mm256_permute2x128_si256(quads[i], quads[i + 4], 0x31));
  }
}

// The units of 8 rows where a unit is one bf16 widened to f32.
static inline __attribute__((always_inline)) void PackWidened8(const uint16_t* const* from, int rows,
                                                               int64_t col, uint32_t* tile, int64_t stride) {
  __m256i units[8];
  for (int m = 0; m < 8; ++m) {
    units[m] =
        m < rows
            ? _mm256_slli_epi32(
                  _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from[m] + col))), 16)
            : _mm256_setzero_si256();
  }
  StoreTransposed8(units, tile, stride);
}

// The units of 8 rows where a unit is a pair of bf16.
static inline __attribute__((always_inline)) void PackPairs8(const uint16_t* const* from, int rows,
                                                             int64_t col, uint32_t* tile, int64_t stride) {
  __m256i units[8];
  for (int m = 0; m < 8; ++m) {
    units[m] = m < rows ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from[m] + col))
                        : _mm256_setzero_si256();
  }
  StoreTransposed8(units, tile, stride);
}

}  // namespace
}  // namespace lancet
