// Codes and block scales of a row of weights. A block is 16 consecutive weights; what a code means is in
// kernels/nvfp4.h. All arithmetic is f32 and the same on every processor, to the bit.
#pragma once

#include <array>
#include <cstdint>

#include "absl/types/span.h"

namespace lancet {

// --- Scales from the largest weight, as published checkpoints have them. ---

// Per block: scale = max(largest |v|, 1e-8) / 6, code = nearest to v / scale, the smaller magnitude on ties,
// its sign set for v < 0 even where the magnitude is 0.
//   v: [n], n % 16 == 0   codes: [n / 2] bytes, even column in the low nibble   scales: [n / 16]
void RoundToLargest(absl::Span<const float> v, absl::Span<uint8_t> codes, absl::Span<float> scales);

// Sum over the row of weights[c] * (rounded v[c] - v[c])^2, rounded as above but with 1e-5 for 1e-8: the
// objective of the published search for AWQ factors. weights: [n], or empty for ones.
double LargestRoundingError(absl::Span<const float> v, absl::Span<const float> weights);

// --- Scales that are searched for, with an eye to products in NVFP4. ---

// Such products take scales as E4M3 numbers under a factor. Scales in bf16 can be finer; but codes are chosen
// once, and have to do for both. So scales are looked for among numbers of six significant bits, each with
// its E4M3 number beside it, and what counts is the error that both leave together. In a study of normally
// distributed weights that left 7.87 % with the scales and 8.15 % with their E4M3 numbers, where each alone
// could have had 7.82 % and 8.13 %, scales from the largest weight leave 9.42 % and 9.77 %.

// The scales of one matrix. The factor is a power of two, so that a product of several matrices, or of slices
// of one, may take any larger one and gets the same numbers.
class ScaleGrid {
 public:
  // 2^-9 times the factor, the least E4M3 number, to 448 times.
  static constexpr int kScales = 17 * 32 + 25;

  // Of weights of which the largest magnitude is `largest`: the factor is the smallest power of two that
  // gives every scale of a search room. 1 for zeros.
  static ScaleGrid For(float largest);

  float factor() const { return factor_; }
  float scale(int index) const { return scales_[index]; }  // increasing; exact in bf16
  uint8_t byte(int index) const { return bytes_[index]; }  // E4M3(scale / factor), never 0
  // The first scale that is not below x >= 0, or the last.
  int FirstNotBelow(float x) const;

  // Read by the search.
  const float* scales() const { return scales_.data(); }
  const float* inverses() const { return inverses_.data(); }
  const float* e4m3_scales() const { return e4m3_scales_.data(); }  // byte * factor

 private:
  float factor_ = 1.0f;
  std::array<float, kScales> scales_{};
  std::array<float, kScales> inverses_{};
  std::array<float, kScales> e4m3_scales_{};
  std::array<uint8_t, kScales> bytes_{};
};

// Per block the scale, as its index, with the least sum over c of weights[c] * ((q[c] scale - v[c])^2 + (q[c]
// e4m3 scale - v[c])^2), q[c] being the code nearest to v[c] / scale; and these codes. The largest code of a
// block is 6 or 7 unless its scale is the first of all. Returns half of the row's sum. weights: [n], or empty
// for ones; n % 16 == 0. `codes` and `indices` may be empty.
double SearchScales(const ScaleGrid& grid, absl::Span<const float> v, absl::Span<const float> weights,
                    absl::Span<uint8_t> codes, absl::Span<uint16_t> indices);

}  // namespace lancet
