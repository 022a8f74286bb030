#include "kernels/cpu/byte_rows_impl.h"
#include "kernels/cpu/simd_avx2.h"

namespace lancet {
namespace {

struct Avx2Bytes : SimdAvx2 {
  LANCET_SIMD int32_t Sum(__m256i v) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_srli_si128(s, 8));
    s = _mm_add_epi32(s, _mm_srli_si128(s, 4));
    return _mm_cvtsi128_si32(s);
  }
  // The sign of a weight goes over to the value: the other factor must be unsigned. A pair of products is at
  // most 2 * 127 * 127, which 16 bits hold.
  template <int M>
  LANCET_SIMD void Dots(const int8_t* w, const int8_t* x, int64_t cols, int32_t* sums) {
    __m256i acc[M];
    LANCET_UNROLL
    for (int m = 0; m < M; ++m) acc[m] = _mm256_setzero_si256();
    for (int64_t i = 0; i < cols; i += 32) {
      const __m256i weights = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w + i));
      const __m256i magnitudes = _mm256_abs_epi8(weights);
      LANCET_UNROLL
      for (int m = 0; m < M; ++m) {
        const __m256i values = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + m * cols + i));
        const __m256i pairs = _mm256_maddubs_epi16(magnitudes, _mm256_sign_epi8(values, weights));
        acc[m] = _mm256_add_epi32(acc[m], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
      }
    }
    LANCET_UNROLL
    for (int m = 0; m < M; ++m) sums[m] = Sum(acc[m]);
  }
};

}  // namespace

void ByteRowsAvx2(const ByteRowsArgs& args) { RunByteRows<Avx2Bytes>(args); }

}  // namespace lancet
