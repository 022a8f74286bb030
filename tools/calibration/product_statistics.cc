#include "tools/calibration/product_statistics.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "absl/strings/str_cat.h"

namespace lancet {
namespace {

constexpr uint16_t kMagnitudeBits = 0x7fff;
constexpr uint16_t kInfinityBits = 0x7f80;
// Rows whose products are summed before they are added to all others': keeps f32 sums of many rows exact
// enough, and the rows in the L2 cache.
constexpr int64_t kXtxRows = 64;

float FromBits(size_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

}  // namespace

ProductStatistics::ProductStatistics(int64_t in, bool with_xtx)
    : in_(in),
      sum_abs_(in),
      max_abs_(in),
      counts_(size_t{kMagnitudeBits} + 1),
      xtx_(with_xtx ? in * in : 0) {}

void ProductStatistics::CopyXtxRow(int64_t i, float* row) const {
  for (int64_t j = 0; j < i; ++j) row[j] = xtx_[j * in_ + i];
  std::copy(xtx_.begin() + i * in_ + i, xtx_.begin() + (i + 1) * in_, row + i);
}

std::array<float, kCalibrationPercentiles.size()> ProductStatistics::Percentiles() const {
  std::array<float, kCalibrationPercentiles.size()> result{};
  const double total = static_cast<double>(n_tokens_) * static_cast<double>(in_);
  int64_t passed = 0;
  size_t next = 0;
  for (size_t bits = 0; bits < counts_.size() && next < result.size(); ++bits) {
    passed += counts_[bits];
    while (counts_[bits] > 0 && next < result.size() &&
           static_cast<double>(passed) >= kCalibrationPercentiles[next] / 100.0 * total) {
      result[next++] = FromBits(bits);
    }
  }
  return result;
}

absl::Status ProductStatistics::Add(ConstMatrixView<bf16> x, ThreadPool& pool) {
  if (x.cols != in_) {
    return absl::InvalidArgumentError(absl::StrCat("rows of ", x.cols, " channels; expected ", in_));
  }
  for (int64_t r = 0; r < x.rows; ++r) {
    for (int64_t c = 0; c < in_; ++c) {
      if ((x.row(r)[c].bits & kMagnitudeBits) < kInfinityBits) continue;
      return absl::InvalidArgumentError(absl::StrCat("channel ", c, " is not a finite number"));
    }
  }
  for (int64_t r = 0; r < x.rows; ++r) {
    const bf16* row = x.row(r);
    for (int64_t c = 0; c < in_; ++c) {
      const uint16_t bits = row[c].bits & kMagnitudeBits;
      const float magnitude = FromBits(bits);
      ++counts_[bits];
      sum_abs_[c] += magnitude;
      max_abs_[c] = std::max(max_abs_[c], magnitude);
    }
  }
  n_tokens_ += x.rows;
  if (has_xtx()) AddXtx(x, pool);
  return absl::OkStatus();
}

void ProductStatistics::AddXtx(ConstMatrixView<bf16> x, ThreadPool& pool) {
  std::vector<float> rows;
  for (int64_t begin = 0; begin < x.rows; begin += kXtxRows) {
    const int64_t count = std::min(kXtxRows, x.rows - begin);
    rows.resize(count * in_);
    for (int64_t r = 0; r < count; ++r)
      std::transform(x.row(begin + r), x.row(begin + r) + in_, rows.data() + r * in_, ToFloat);
    pool.ParallelFor(in_, 16, [&](int64_t first, int64_t end, int /*thread*/) {
      std::vector<float> sums(in_);
      for (int64_t i = first; i < end; ++i) {
        std::fill(sums.begin() + i, sums.end(), 0.0f);
        for (int64_t r = 0; r < count; ++r) {
          const float* row = rows.data() + r * in_;
          const float factor = row[i];
          for (int64_t j = i; j < in_; ++j) sums[j] += factor * row[j];
        }
        float* total = xtx_.data() + i * in_;
        for (int64_t j = i; j < in_; ++j) total[j] += sums[j];
      }
    });
  }
}

absl::Status ProductStatistics::Add(const LinearStatistics& other) {
  if (other.in != in_) {
    return absl::InvalidArgumentError(absl::StrCat("statistics of ", other.in, " channels; expected ", in_));
  }
  if (other.max_abs.empty() || other.abs_bits.empty()) {
    return absl::InvalidArgumentError("has no max_abs or abs_bits; another tool's files cannot be merged");
  }
  if (other.xtx.empty() == has_xtx()) {
    return absl::InvalidArgumentError("one run has xtx and the other has not");
  }
  n_tokens_ += other.n_tokens;
  for (int64_t c = 0; c < in_; ++c) {
    sum_abs_[c] += other.sum_abs[c];
    max_abs_[c] = std::max(max_abs_[c], other.max_abs[c]);
  }
  for (size_t i = 0; i < other.abs_bits.size(); ++i) counts_[other.abs_bits[i]] += other.abs_counts[i];
  if (!has_xtx()) return absl::OkStatus();
  for (int64_t i = 0; i < in_; ++i) {
    for (int64_t j = i; j < in_; ++j) xtx_[i * in_ + j] += other.xtx[i * in_ + j];
  }
  return absl::OkStatus();
}

}  // namespace lancet
