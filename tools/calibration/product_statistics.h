// Statistics of the rows that enter one product.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "common/bf16.h"
#include "common/tensor_view.h"
#include "common/thread_pool.h"
#include "tools/calibration/calibration_file.h"

namespace lancet {

// Not thread-safe.
class ProductStatistics {
 public:
  ProductStatistics(int64_t in, bool with_xtx);

  int64_t in() const { return in_; }
  int64_t n_tokens() const { return n_tokens_; }
  bool has_xtx() const { return !xtx_.empty(); }
  // [in]: sums over rows of |x|, and the largest |x|.
  const std::vector<double>& sum_abs() const { return sum_abs_; }
  const std::vector<float>& max_abs() const { return max_abs_; }
  // How often each |x| occurred, by its bits as bf16: [2^15].
  const std::vector<int64_t>& counts() const { return counts_; }
  // Row i of the sum over rows of x x^T, into [in].
  void CopyXtxRow(int64_t i, float* row) const;
  // The smallest |x| that so many percent of all |x| do not exceed, for kCalibrationPercentiles; 0 without
  // rows.
  std::array<float, kCalibrationPercentiles.size()> Percentiles() const;

  // x: [rows, in]. The pool shares the work on x x^T. InvalidArgument if x has other columns or a value that
  // is not finite: then nothing is added.
  absl::Status Add(ConstMatrixView<bf16> x, ThreadPool& pool);
  // Of another run. InvalidArgument if it has other channels, no maxima or no counts, or if one of the two
  // has xtx and the other has not.
  absl::Status Add(const LinearStatistics& other);

 private:
  void AddXtx(ConstMatrixView<bf16> x, ThreadPool& pool);

  const int64_t in_;
  int64_t n_tokens_ = 0;
  std::vector<double> sum_abs_;
  std::vector<float> max_abs_;
  std::vector<int64_t> counts_;
  std::vector<float> xtx_;  // [in, in], of which the upper half is used; empty unless asked for
};

}  // namespace lancet
