// The search for factors per channel that a norm gives up and the Linears behind it take over (AWQ): channels
// that carry more get finer steps.
//
//   s(alpha) = act^alpha / m^(1 - alpha), at least 1e-5, divided by sqrt(max s * min s)
// act: mean |x| of a channel; m: the mean over the Linears of the largest |w| of its column; both at least
// 1e-5; alpha = 0, 0.05 ... 1. The norm's weight is divided by s, the columns of the weights are multiplied.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "common/thread_pool.h"
#include "tools/quantize/source_matrix.h"

namespace lancet {

inline constexpr int kFactorGrid = 21;
inline double GridAlpha(int index) { return index / 20.0; }

// Per column the largest |w|; [cols]. NaN anywhere gives false in `finite`.
std::vector<float> ColumnLargest(const SourceMatrix& matrix, ThreadPool& pool, bool& finite);

std::vector<float> FactorsAt(double alpha, absl::Span<const float> act, absl::Span<const float> m);

struct FactorSearch {
  std::vector<float> s;        // empty: no factors do best
  double alpha = -1;           // of s
  std::vector<double> errors;  // of every candidate, in their order
};

// Linears with one input. The expected squared error of their outputs, if channels were independent:
//   sum over Linears of 1 / out * sum over rows and columns of act^2 (Q(w s) / s - w)^2
struct FactorProblem {
  std::vector<SourceMatrix> linears;
  std::vector<std::vector<float>> column_largest;  // of each
  std::vector<float> act;                          // [in]
};

// With scales from the largest weight, over all rows: the published recipe. The first of the least.
FactorSearch SearchPublishedFactors(const FactorProblem& problem, ThreadPool& pool);

// With searched scales, over up to `max_rows` rows of every Linear, evenly spread; and no factors at all as
// one more candidate, the first. mean_square: [in], of x.
FactorSearch SearchBestFactors(const FactorProblem& problem, absl::Span<const float> mean_square,
                               int64_t max_rows, ThreadPool& pool);

}  // namespace lancet
