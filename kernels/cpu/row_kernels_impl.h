// The row-wise steps, written once over the primitives of an instruction set `S`. Sums of squares run in
// lanes and are folded in a fixed order, so a row's result depends on the row alone.
#pragma once

#include <cstdint>

#include "kernels/cpu/row_kernels.h"
#include "kernels/cpu/simd_math.h"

namespace lancet {

template <typename S>
struct RowImpl {
  using F = typename S::F;

  static F Load(const uint16_t* p, int64_t n) { return n >= S::kLanes ? S::LoadBf16(p) : S::LoadBf16N(p, n); }
  static void Store(uint16_t* p, F v, int64_t n) {
    if (n >= S::kLanes) {
      S::StoreBf16(p, v);
    } else {
      S::StoreBf16N(p, v, n);
    }
  }

  // 1 / sqrt(mean(x^2) + eps).
  static float InverseRms(const uint16_t* x, float eps, int64_t dim) {
    F sum = S::Set1(0.0f);
    for (int64_t i = 0; i < dim; i += S::kLanes) {
      const F v = Load(x + i, dim - i);
      sum = S::Fma(v, v, sum);
    }
    return 1.0f / __builtin_sqrtf(S::ReduceAdd(sum) / static_cast<float>(dim) + eps);
  }

  static void RmsNorm(const uint16_t* x, const uint16_t* weight, float eps, int64_t dim, uint16_t* y) {
    const F inverse = S::Set1(InverseRms(x, eps, dim));
    for (int64_t i = 0; i < dim; i += S::kLanes) {
      const F normalised = S::RoundBf16(Load(x + i, dim - i) * inverse);
      Store(y + i, normalised * Load(weight + i, dim - i), dim - i);
    }
  }

  template <bool Wide>
  static F Round(F v) {
    return Wide ? v : S::RoundBf16(v);
  }

  template <bool Wide>
  static void NormRopeMode(uint16_t* head, const uint16_t* weight, float eps, const uint16_t* cos,
                           const uint16_t* sin, int64_t head_dim) {
    const F inverse = S::Set1(InverseRms(head, eps, head_dim));
    const int64_t half = head_dim / 2;
    for (int64_t i = 0; i < half; i += S::kLanes) {
      const int64_t n = half - i;
      const F a = Round<Wide>(Round<Wide>(Load(head + i, n) * inverse) * Load(weight + i, n));
      const F b = Round<Wide>(Round<Wide>(Load(head + half + i, n) * inverse) * Load(weight + half + i, n));
      const F c = Load(cos + i, n);
      const F s = Load(sin + i, n);
      Store(head + i, Round<Wide>(a * c) - Round<Wide>(b * s), n);
      Store(head + half + i, Round<Wide>(b * c) + Round<Wide>(a * s), n);
    }
  }

  static void NormRope(uint16_t* head, const uint16_t* weight, float eps, const uint16_t* cos,
                       const uint16_t* sin, int64_t head_dim, bool wide) {
    if (wide) {
      NormRopeMode<true>(head, weight, eps, cos, sin, head_dim);
    } else {
      NormRopeMode<false>(head, weight, eps, cos, sin, head_dim);
    }
  }

  static void Rope(uint16_t* head, const uint16_t* cos, const uint16_t* sin, int64_t head_dim) {
    const int64_t half = head_dim / 2;
    for (int64_t i = 0; i < half; i += S::kLanes) {
      const int64_t n = half - i;
      const F a = Load(head + i, n);
      const F b = Load(head + half + i, n);
      const F c = Load(cos + i, n);
      const F s = Load(sin + i, n);
      Store(head + i, a * c - b * s, n);
      Store(head + half + i, b * c + a * s, n);
    }
  }

  static F SiluOf(F x) { return x / (S::Set1(1.0f) + Exp<S>(S::Set1(0.0f) - x)); }

  static void SiluMul(const uint16_t* gate, const uint16_t* up, int64_t n, uint16_t* y) {
    for (int64_t i = 0; i < n; i += S::kLanes) {
      Store(y + i, S::RoundBf16(SiluOf(Load(gate + i, n - i))) * Load(up + i, n - i), n - i);
    }
  }

  static void Silu(uint16_t* x, int64_t n) {
    for (int64_t i = 0; i < n; i += S::kLanes) Store(x + i, SiluOf(Load(x + i, n - i)), n - i);
  }

  // x Phi(x) = max(x, 0) - |x| h, h = erfc(|x| / sqrt 2) / 2: no digits cancel in the tails.
  static F GeluOf(F x) {
    const F zero = S::Set1(0.0f);
    const F magnitude = S::Max(zero - x, x);
    const F tail = S::Set1(0.5f) * Erfc<S>(magnitude * S::Set1(0.70710678f));
    return S::Max(zero, x) - magnitude * tail;
  }

  static void Gelu(uint16_t* x, int64_t n) {
    for (int64_t i = 0; i < n; i += S::kLanes) Store(x + i, GeluOf(Load(x + i, n - i)), n - i);
  }

  static F LoadFloat(const float* p, int64_t n) { return n >= S::kLanes ? S::Load(p) : S::LoadN(p, n); }

  static void AddBias(const float* sums, const uint16_t* bias, int64_t n, uint16_t* y) {
    for (int64_t i = 0; i < n; i += S::kLanes) {
      Store(y + i, LoadFloat(sums + i, n - i) + Load(bias + i, n - i), n - i);
    }
  }

  static void AddBiasedResidual(const float* delta, const uint16_t* bias, int64_t n, uint16_t* x) {
    for (int64_t i = 0; i < n; i += S::kLanes) {
      const F d = S::RoundBf16(LoadFloat(delta + i, n - i) + Load(bias + i, n - i));
      Store(x + i, Load(x + i, n - i) + d, n - i);
    }
  }

  static void AddResidual(const float* delta, int64_t n, uint16_t* x) {
    for (int64_t i = 0; i < n; i += S::kLanes) {
      Store(x + i, Load(x + i, n - i) + S::RoundBf16(LoadFloat(delta + i, n - i)), n - i);
    }
  }

  static void ExpRow(float* x, int64_t n) {
    for (int64_t i = 0; i < n; i += S::kLanes) {
      const int64_t left = n - i < S::kLanes ? n - i : S::kLanes;
      S::StoreN(x + i, Exp<S>(S::LoadN(x + i, left)), left);
    }
  }

  static RowKernels Kernels() {
    RowKernels kernels;
    kernels.rms_norm = &RmsNorm;
    kernels.norm_rope = &NormRope;
    kernels.rope = &Rope;
    kernels.silu_mul = &SiluMul;
    kernels.silu = &Silu;
    kernels.gelu = &Gelu;
    kernels.add_residual = &AddResidual;
    kernels.add_biased_residual = &AddBiasedResidual;
    kernels.add_bias = &AddBias;
    kernels.exp = &ExpRow;
    return kernels;
  }
};

}  // namespace lancet
