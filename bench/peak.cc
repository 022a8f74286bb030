#include "bench/peak.h"

#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <vector>

namespace lancet {
namespace {

constexpr int kChains = 12;  // independent sums: more than latency times issue width of current cores
constexpr int kSteps = 100000;

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
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

}  // namespace

double MeasurePeakFlops(CpuIsa isa) {
  void (*loop)() = MulAdd128;
  double flops = 8;
  if (isa == CpuIsa::kAvx2) loop = Fma256, flops = 16;
  if (isa == CpuIsa::kAvx512) loop = Fma512, flops = 32;
  if (isa == CpuIsa::kAvx512Bf16) loop = DotBf16, flops = 64;
  double best = 1e9;
  for (int round = 0; round < 60; ++round) {
    const double start = Seconds();
    loop();
    best = std::min(best, Seconds() - start);
  }
  return flops * kChains * kSteps / best;
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
