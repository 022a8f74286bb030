#include "tools/quantize/channel_factors.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "absl/functional/function_ref.h"
#include "tools/quantize/row_rounding.h"

namespace lancet {
namespace {

constexpr float kLeast = 1e-5f;

// [in], each at least kLeast.
std::vector<float> ActAtLeast(absl::Span<const float> act) {
  std::vector<float> values(act.begin(), act.end());
  for (float& value : values) value = std::max(value, kLeast);
  return values;
}

std::vector<float> MeanOfLargest(const FactorProblem& problem) {
  std::vector<float> mean(problem.act.size(), 0.0f);
  for (const std::vector<float>& largest : problem.column_largest) {
    for (size_t c = 0; c < mean.size(); ++c) mean[c] += std::max(largest[c], kLeast);
  }
  for (float& value : mean) value /= static_cast<float>(problem.column_largest.size());
  return mean;
}

// error(k, candidate, v, weights) of a row of Linear k, summed as FactorProblem says over every
// row_step-th row. weights[candidate]: [in]; candidates may be empty for no factors.
std::vector<double> SumErrors(const FactorProblem& problem, const std::vector<std::vector<float>>& candidates,
                              const std::vector<std::vector<float>>& weights, int64_t max_rows,
                              ThreadPool& pool,
                              absl::FunctionRef<double(size_t k, size_t candidate, absl::Span<const float> v,
                                                       absl::Span<const float> weights)>
                                  error) {
  const size_t count = candidates.size();
  std::vector<double> sums(count, 0.0);
  for (size_t k = 0; k < problem.linears.size(); ++k) {
    const SourceMatrix& matrix = problem.linears[k];
    const int64_t step = std::max<int64_t>(1, matrix.rows() / max_rows);
    const int64_t rows = (matrix.rows() + step - 1) / step;
    // Added up in their order, so that the number of threads changes nothing.
    std::vector<double> row_errors(rows * count);
    pool.ParallelFor(rows, 1, [&](int64_t begin, int64_t end, int) {
      std::vector<float> w(matrix.cols());
      std::vector<float> v(matrix.cols());
      for (int64_t i = begin; i < end; ++i) {
        matrix.ReadRow(i * step, absl::MakeSpan(w));
        for (size_t candidate = 0; candidate < count; ++candidate) {
          const std::vector<float>& s = candidates[candidate];
          for (size_t c = 0; c < w.size(); ++c) v[c] = s.empty() ? w[c] : w[c] * s[c];
          row_errors[i * count + candidate] = error(k, candidate, v, weights[candidate]);
        }
      }
    });
    for (int64_t i = 0; i < rows; ++i) {
      for (size_t candidate = 0; candidate < count; ++candidate) {
        sums[candidate] += row_errors[i * count + candidate] / static_cast<double>(rows);
      }
    }
  }
  return sums;
}

// square / s^2: what an error of a scaled weight costs.
std::vector<float> ErrorWeights(absl::Span<const float> square, const std::vector<float>& s) {
  std::vector<float> weights(square.begin(), square.end());
  for (size_t c = 0; c < s.size(); ++c) weights[c] /= s[c] * s[c];
  return weights;
}

size_t FirstLeast(const std::vector<double>& errors) {
  return static_cast<size_t>(std::min_element(errors.begin(), errors.end()) - errors.begin());
}

}  // namespace

std::vector<float> ColumnLargest(const SourceMatrix& matrix, ThreadPool& pool, bool& finite) {
  std::vector<std::vector<float>> parts(pool.num_threads());
  std::atomic<bool> all_finite = true;
  pool.ParallelFor(matrix.rows(), 16, [&](int64_t begin, int64_t end, int thread) {
    std::vector<float>& largest = parts[thread];
    largest.resize(matrix.cols(), 0.0f);
    std::vector<float> row(matrix.cols());
    for (int64_t r = begin; r < end; ++r) {
      matrix.ReadRow(r, absl::MakeSpan(row));
      if (!AllFinite(row)) all_finite = false;
      for (size_t c = 0; c < row.size(); ++c) {
        const float magnitude = std::fabs(row[c]);
        largest[c] = largest[c] < magnitude ? magnitude : largest[c];
      }
    }
  });
  finite = all_finite;
  std::vector<float> largest(matrix.cols(), 0.0f);
  for (const std::vector<float>& part : parts) {
    for (size_t c = 0; c < part.size(); ++c) largest[c] = std::max(largest[c], part[c]);
  }
  return largest;
}

std::vector<float> FactorsAt(double alpha, absl::Span<const float> act, absl::Span<const float> m) {
  std::vector<float> s(act.size());
  const float a = static_cast<float>(alpha);
  const float b = static_cast<float>(1.0 - alpha);
  float largest = 0.0f;
  float least = INFINITY;
  for (size_t c = 0; c < s.size(); ++c) {
    s[c] = std::max(std::pow(act[c], a) / std::pow(m[c], b), kLeast);
    largest = std::max(largest, s[c]);
    least = std::min(least, s[c]);
  }
  const float middle = std::sqrt(largest * least);
  for (float& value : s) value /= middle;
  return s;
}

FactorSearch SearchPublishedFactors(const FactorProblem& problem, ThreadPool& pool) {
  const std::vector<float> act = ActAtLeast(problem.act);
  const std::vector<float> m = MeanOfLargest(problem);
  std::vector<float> square;
  for (const float value : act) square.push_back(value * value);
  std::vector<std::vector<float>> candidates;
  std::vector<std::vector<float>> weights;
  for (int i = 0; i < kFactorGrid; ++i) {
    candidates.push_back(FactorsAt(GridAlpha(i), act, m));
    weights.push_back(ErrorWeights(square, candidates.back()));
  }
  FactorSearch search;
  search.errors =
      SumErrors(problem, candidates, weights, INT64_MAX, pool,
                [](size_t, size_t, absl::Span<const float> v, absl::Span<const float> row_weights) {
                  return LargestRoundingError(v, row_weights);
                });
  const size_t best = FirstLeast(search.errors);
  search.alpha = GridAlpha(static_cast<int>(best));
  search.s = std::move(candidates[best]);
  return search;
}

FactorSearch SearchBestFactors(const FactorProblem& problem, absl::Span<const float> mean_square,
                               int64_t max_rows, ThreadPool& pool) {
  const std::vector<float> act = ActAtLeast(problem.act);
  const std::vector<float> m = MeanOfLargest(problem);
  std::vector<std::vector<float>> candidates = {{}};
  for (int i = 0; i < kFactorGrid; ++i) candidates.push_back(FactorsAt(GridAlpha(i), act, m));
  std::vector<std::vector<float>> weights;
  std::vector<std::vector<ScaleGrid>> grids(problem.linears.size());
  for (const std::vector<float>& s : candidates) {
    weights.push_back(ErrorWeights(mean_square, s));
    for (size_t k = 0; k < grids.size(); ++k) {
      float largest = 0.0f;
      for (size_t c = 0; c < act.size(); ++c) {
        largest = std::max(largest, problem.column_largest[k][c] * (s.empty() ? 1.0f : s[c]));
      }
      grids[k].push_back(ScaleGrid::For(largest));
    }
  }
  FactorSearch search;
  search.errors = SumErrors(
      problem, candidates, weights, max_rows, pool,
      [&](size_t k, size_t candidate, absl::Span<const float> v, absl::Span<const float> row_weights) {
        return SearchScales(grids[k][candidate], v, row_weights, {}, {});
      });
  const size_t best = FirstLeast(search.errors);
  if (best > 0) {
    search.alpha = GridAlpha(static_cast<int>(best) - 1);
    search.s = std::move(candidates[best]);
  }
  return search;
}

}  // namespace lancet
