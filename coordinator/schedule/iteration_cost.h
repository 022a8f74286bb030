// What an iteration of a group costs, from what was measured: so much for itself (weights are read once,
// whatever the rows) and so much for each packed row. Not thread-safe.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

#include "absl/time/time.h"

namespace lancet {

struct IterationCost {
  double base_seconds = 0;
  double row_seconds = 0;

  double Seconds(double iterations, double rows) const {
    return base_seconds * iterations + row_seconds * rows;
  }
};

// A line through (rows, seconds) by least squares, where what is older counts less.
class IterationCostMeter {
 public:
  void Add(int64_t packed_rows, absl::Duration took) {
    const double rows = static_cast<double>(packed_rows);
    const double seconds = absl::ToDoubleSeconds(took);
    // Follows a change within some dozen iterations and still smooths single hiccups.
    const double weight = measured_ ? 1.0 / 16 : 1.0;
    measured_ = true;
    rows_ += (rows - rows_) * weight;
    seconds_ += (seconds - seconds_) * weight;
    rows_rows_ += (rows * rows - rows_rows_) * weight;
    rows_seconds_ += (rows * seconds - rows_seconds_) * weight;
  }

  // Absent while nothing was measured. Neither part is negative; if all iterations had the same rows, these
  // bear all of the time.
  std::optional<IterationCost> cost() const {
    if (!measured_) return std::nullopt;
    const double variance = rows_rows_ - rows_ * rows_;
    const double most = seconds_ / std::max(rows_, 1.0);
    IterationCost cost{0, most};
    if (variance > 1e-6 * std::max(1.0, rows_rows_)) {
      cost.row_seconds = std::clamp((rows_seconds_ - rows_ * seconds_) / variance, 0.0, most);
      cost.base_seconds = std::max(0.0, seconds_ - cost.row_seconds * rows_);
    }
    return cost;
  }

 private:
  bool measured_ = false;
  // Decaying means.
  double rows_ = 0;
  double seconds_ = 0;
  double rows_rows_ = 0;
  double rows_seconds_ = 0;
};

}  // namespace lancet
