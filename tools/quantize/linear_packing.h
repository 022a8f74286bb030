// Whole Linears, quantised: codes and both kinds of scales as a checkpoint stores them.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "common/bf16.h"
#include "common/thread_pool.h"
#include "tools/quantize/row_rounding.h"
#include "tools/quantize/source_matrix.h"

namespace lancet {

// As common/trunk_layout.h says.
struct PackedLinear {
  std::vector<uint8_t> codes;       // [rows, cols / 2]
  std::vector<uint8_t> scales_fp8;  // [rows, cols / 16]
  std::vector<bf16> scales_bf16;    // [rows, cols / 16]
  // With searched scales: scales_fp8 = E4M3(scales_bf16 / factor). 0: scales_fp8 are rounded scales.
  float factor = 0.0f;

  PackedLinear() = default;
  PackedLinear(int64_t rows, int64_t cols);
  void SetScale(int64_t block, const ScaleGrid& grid, int index);
};

// All take factors per column, `s`, [cols] or empty: what is packed is w[c] * s[c], in f32.

// Scales from the largest weight of a block, as published.
PackedLinear PackToLargest(const SourceMatrix& matrix, absl::Span<const float> s, ThreadPool& pool);

// Scales searched for the least error, weighted by `weights` [cols] per column (of scaled weights), or empty
// for equal ones. `largest`: of the scaled weights.
PackedLinear PackSearched(const SourceMatrix& matrix, absl::Span<const float> s,
                          absl::Span<const float> weights, float largest, ThreadPool& pool);

// Not quantised: scaled and rounded to bf16, [rows, cols].
std::vector<bf16> ScaleToBf16(const SourceMatrix& matrix, absl::Span<const float> s, ThreadPool& pool);

// The row times s.
void ReadScaledRow(const SourceMatrix& matrix, int64_t row, absl::Span<const float> s, absl::Span<float> to);

}  // namespace lancet
