// The exponential for softmax and SiLU and the complementary error function for GELU, from the primitives of
// simd_portable.h and its kin.
#pragma once

namespace lancet {

// e^x, within 2 ulp of the exact value where the result is normal; 0 below -104, infinity above 89, NaN stays
// NaN. x = n ln 2 + r with |r| <= ln 2 / 2; e^r by its Taylor polynomial of degree 7, whose first omitted
// term is below 6e-9 of the value.
template <typename S>
static inline __attribute__((always_inline)) typename S::F Exp(typename S::F x) {
  using F = typename S::F;
  // The bound comes first in Max and Min: they return the second operand when that is NaN.
  x = S::Min(S::Set1(89.0f), S::Max(S::Set1(-104.0f), x));
  const F n = S::RoundInt(x * S::Set1(1.44269504f));
  // ln 2 in two parts; the first has 10 significant bits, so that n times it is exact.
  F r = S::Fma(n, S::Set1(-0.693359375f), x);
  r = S::Fma(n, S::Set1(2.12194440e-4f), r);
  F p = S::Set1(1.0f / 5040.0f);
  p = S::Fma(p, r, S::Set1(1.0f / 720.0f));
  p = S::Fma(p, r, S::Set1(1.0f / 120.0f));
  p = S::Fma(p, r, S::Set1(1.0f / 24.0f));
  p = S::Fma(p, r, S::Set1(1.0f / 6.0f));
  p = S::Fma(p, r, S::Set1(0.5f));
  p = S::Fma(p, r, S::Set1(1.0f));
  p = S::Fma(p, r, S::Set1(1.0f));
  return S::ScaleByPow2(p, n);
}

// e^x for x <= 0, within 4 ulp down to e^-87, below which it stays e^-87; NaN stays NaN. For softmax, whose
// arguments are never above 0 and whose smallest terms do not matter beside its largest, 1: without Exp's
// guards at both ends, with one term less (the first omitted one is below 1.2e-7 of the value).
template <typename S>
static inline __attribute__((always_inline)) typename S::F ExpBelowZero(typename S::F x) {
  using F = typename S::F;
  x = S::Max(S::Set1(-87.0f), x);
  const F n = S::RoundInt(x * S::Set1(1.44269504f));
  F r = S::Fma(n, S::Set1(-0.693359375f), x);
  r = S::Fma(n, S::Set1(2.12194440e-4f), r);
  F p = S::Set1(1.0f / 720.0f);
  p = S::Fma(p, r, S::Set1(1.0f / 120.0f));
  p = S::Fma(p, r, S::Set1(1.0f / 24.0f));
  p = S::Fma(p, r, S::Set1(1.0f / 6.0f));
  p = S::Fma(p, r, S::Set1(0.5f));
  p = S::Fma(p, r, S::Set1(1.0f));
  p = S::Fma(p, r, S::Set1(1.0f));
  return S::ScaleByNormalPow2(p, n);  // n >= -126
}

// erfc(x) for x >= 0: t exp(-x^2 + P(t)), t = 1 / (1 + x / 2), with the Chebyshev fit of degree 9 of
// Numerical Recipes (erfcc), whose relative error is 1.2e-7; rounding -x^2 to f32 adds x^2 2^-24. NaN stays
// NaN.
template <typename S>
static inline __attribute__((always_inline)) typename S::F Erfc(typename S::F x) {
  using F = typename S::F;
  const F t = S::Set1(1.0f) / S::Fma(S::Set1(0.5f), x, S::Set1(1.0f));
  F p = S::Set1(0.17087277f);
  p = S::Fma(p, t, S::Set1(-0.82215223f));
  p = S::Fma(p, t, S::Set1(1.48851587f));
  p = S::Fma(p, t, S::Set1(-1.13520398f));
  p = S::Fma(p, t, S::Set1(0.27886807f));
  p = S::Fma(p, t, S::Set1(-0.18628806f));
  p = S::Fma(p, t, S::Set1(0.09678418f));
  p = S::Fma(p, t, S::Set1(0.37409196f));
  p = S::Fma(p, t, S::Set1(1.00002368f));
  p = S::Fma(p, t, S::Set1(-1.26551223f));
  return t * Exp<S>(p - x * x);
}

}  // namespace lancet
