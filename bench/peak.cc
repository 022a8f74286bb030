#include "bench/peak.h"

#include <immintrin.h>
#include <time.h>

#include <algorithm>
#include <vector>

namespace lancet {
namespace {

constexpr int kChains = 12;  // independent sums: more than latency times issue width of current cores
constexpr int kSteps = 100000;

double Seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

__attribute__((target("avx512f,avx512bf16"))) void DotBf16() {
  __m512 sums[kChains] = {};
  __m512bh a = (__m512bh)_mm512_set1_epi16(0);
  for (int i = 0; i < kSteps; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) {
      sums[c] = _mm512_dpbf16_ps(sums[c], a, a);
      asm volatile("" : "+v"(sums[c]));
    }
  }
}

__attribute__((target("avx512f"))) void Fma512() {
  __m512 sums[kChains] = {};
  const __m512 a = _mm512_set1_ps(0.5f);
  for (int i = 0; i < kSteps; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) {
      sums[c] = _mm512_fmadd_ps(a, a, sums[c]);
      asm volatile("" : "+v"(sums[c]));
    }
  }
}

__attribute__((target("avx2,fma"))) void Fma256() {
  __m256 sums[kChains] = {};
  const __m256 a = _mm256_set1_ps(0.5f);
  for (int i = 0; i < kSteps; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) {
      sums[c] = _mm256_fmadd_ps(a, a, sums[c]);
      asm volatile("" : "+x"(sums[c]));
    }
  }
}

void MulAdd128() {
  __m128 sums[kChains] = {};
  const __m128 a = _mm_set1_ps(0.5f);
  for (int i = 0; i < kSteps; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) {
      sums[c] = _mm_add_ps(_mm_mul_ps(a, a), sums[c]);
      asm volatile("" : "+x"(sums[c]));
    }
  }
}

// A loop of int8 products: kChains chains of one step each, or of one block each.
#define LANCET_INT8_LOOP(name, isa_flags, Vector, zero, constraint, step)    \
  __attribute__((target(isa_flags))) void name() {                           \
    Vector sums[kChains];                                                    \
    for (Vector & sum : sums) sum = zero;                                    \
    Vector a = zero;                                                         \
    asm volatile("" : "+" constraint(a));                                    \
    for (int i = 0; i < kSteps; ++i) {                                       \
      _Pragma("GCC unroll 12") for (int c = 0; c < kChains; ++c) {           \
        sums[c] = step;                                                      \
        /* A product of the same operands would be taken out of the loop. */ \
        asm volatile("" : "+" constraint(sums[c]), "+" constraint(a));       \
      }                                                                      \
    }                                                                        \
  }
LANCET_INT8_LOOP(Words128, "sse2", __m128i, _mm_setzero_si128(), "x",
                 _mm_add_epi32(sums[c], _mm_madd_epi16(a, a)))
LANCET_INT8_LOOP(Bytes256, "avx2", __m256i, _mm256_setzero_si256(), "x",
                 _mm256_add_epi16(sums[c], _mm256_maddubs_epi16(a, a)))
LANCET_INT8_LOOP(Bytes512, "avx512f,avx512bw", __m512i, _mm512_setzero_si512(), "v",
                 _mm512_add_epi16(sums[c], _mm512_maddubs_epi16(a, a)))
LANCET_INT8_LOOP(Vnni256, "avx2,avxvnni", __m256i, _mm256_setzero_si256(), "x",
                 _mm256_dpbusd_avx_epi32(sums[c], a, a))
LANCET_INT8_LOOP(Vnni512, "avx512f,avx512vnni", __m512i, _mm512_setzero_si512(), "v",
                 _mm512_dpbusd_epi32(sums[c], a, a))
#undef LANCET_INT8_LOOP

// Blocks: eight f32 sums; `Product` is one step of the integer sum.
#define LANCET_BLOCK_LOOP(name, isa_flags, Int, Float, zero, fzero, constraint, product, convert, fma) \
  __attribute__((target(isa_flags))) void name() {                                                     \
    Float sums[kBlockChains];                                                                          \
    for (Float & sum : sums) sum = fzero;                                                              \
    Float scale = fzero;                                                                               \
    Int a = zero;                                                                                      \
    Int w[4] = {zero, zero, zero, zero};                                                               \
    asm volatile("" : "+" constraint(a), "+" constraint(scale));                                       \
    for (Int & x : w) asm volatile("" : "+" constraint(x));                                            \
    for (int i = 0; i < kSteps; ++i) {                                                                 \
      _Pragma("GCC unroll 8") for (int c = 0; c < kBlockChains; ++c) {                                 \
        Int dot = a;                                                                                   \
        _Pragma("GCC unroll 4") for (int g = 0; g < 4; ++g) {                                          \
          dot = product;                                                                               \
          asm volatile("" : "+" constraint(a));                                                        \
        }                                                                                              \
        sums[c] = fma(convert, scale, sums[c]);                                                        \
        asm volatile("" : "+" constraint(sums[c]));                                                    \
      }                                                                                                \
    }                                                                                                  \
  }
constexpr int kBlockChains = 8;
LANCET_BLOCK_LOOP(BytesBlock256, "avx2,fma", __m256i, __m256, _mm256_setzero_si256(), _mm256_setzero_ps(),
                  "x", _mm256_add_epi16(dot, _mm256_maddubs_epi16(w[g], a)),
                  _mm256_cvtepi32_ps(_mm256_madd_epi16(dot, _mm256_set1_epi16(1))), _mm256_fmadd_ps)
LANCET_BLOCK_LOOP(BytesBlock512, "avx512f,avx512bw", __m512i, __m512, _mm512_setzero_si512(),
                  _mm512_setzero_ps(), "v", _mm512_add_epi16(dot, _mm512_maddubs_epi16(w[g], a)),
                  _mm512_cvtepi32_ps(_mm512_madd_epi16(dot, _mm512_set1_epi16(1))), _mm512_fmadd_ps)
LANCET_BLOCK_LOOP(VnniBlock256, "avx2,fma,avxvnni", __m256i, __m256, _mm256_setzero_si256(),
                  _mm256_setzero_ps(), "x", _mm256_dpbusd_avx_epi32(dot, w[g], a), _mm256_cvtepi32_ps(dot),
                  _mm256_fmadd_ps)
LANCET_BLOCK_LOOP(VnniBlock512, "avx512f,avx512vnni", __m512i, __m512, _mm512_setzero_si512(),
                  _mm512_setzero_ps(), "v", _mm512_dpbusd_epi32(dot, w[g], a), _mm512_cvtepi32_ps(dot),
                  _mm512_fmadd_ps)
#undef LANCET_BLOCK_LOOP

// The best of many rounds: operations/s of a loop that does `ops` of them.
double BestRate(void (*loop)(), double ops) {
  double best = 1e9;
  for (int round = 0; round < 60; ++round) {
    const double start = Seconds();
    loop();
    best = std::min(best, Seconds() - start);
  }
  return ops / best;
}

}  // namespace

double MeasurePeakFlops(CpuIsa isa) {
  void (*loop)() = MulAdd128;
  double flops = 8;
  if (isa == CpuIsa::kAvx2) loop = Fma256, flops = 16;
  if (isa == CpuIsa::kAvx512) loop = Fma512, flops = 32;
  if (isa == CpuIsa::kAvx512Bf16) loop = DotBf16, flops = 64;
  return BestRate(loop, flops * kChains * kSteps);
}

double MeasurePeakInt8(CpuIsa isa, bool vnni) {
  void (*loop)() = Words128;
  double ops = 16;
  if (isa == CpuIsa::kAvx2) loop = vnni ? Vnni256 : Bytes256, ops = 64;
  if (isa >= CpuIsa::kAvx512) loop = vnni ? Vnni512 : Bytes512, ops = 128;
  return BestRate(loop, ops * kChains * kSteps);
}

double MeasureBlockInt8(CpuIsa isa, bool vnni) {
  if (isa == CpuIsa::kPortable) return MeasurePeakInt8(isa, vnni);
  void (*loop)() = vnni ? VnniBlock256 : BytesBlock256;
  double ops = 256;
  if (isa >= CpuIsa::kAvx512) loop = vnni ? VnniBlock512 : BytesBlock512, ops = 512;
  return BestRate(loop, ops * kBlockChains * kSteps);
}

double MeasureReadBandwidth(int64_t bytes) {
  const std::vector<uint64_t> data(static_cast<size_t>(bytes) / 8, 1);
  double best = 1e9;
  uint64_t sum = 0;
  for (int round = 0; round < 20; ++round) {
    const double start = Seconds();
    for (const uint64_t x : data) sum += x;
    asm volatile("" : "+r"(sum));
    best = std::min(best, Seconds() - start);
  }
  return static_cast<double>(data.size() * 8) / best;
}

}  // namespace lancet
