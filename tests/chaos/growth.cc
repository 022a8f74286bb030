#include "tests/chaos/growth.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_format.h"

namespace lancet {
namespace {

// Enough for a first, a middle and a last third.
constexpr size_t kLeastWindows = 3;

struct Thirds {
  double first = 0;
  double last = 0;
};

// Of at least three values.
Thirds MediansOfThirds(const std::vector<double>& values) {
  const auto third = static_cast<std::ptrdiff_t>(values.size() / 3);
  return {Median({values.begin(), values.begin() + third}), Median({values.end() - third, values.end()})};
}

double MedianSlope(const std::vector<double>& values) {
  std::vector<double> slopes;
  for (size_t i = 0; i < values.size(); ++i) {
    for (size_t j = i + 1; j < values.size(); ++j) {
      slopes.push_back((values[j] - values[i]) / static_cast<double>(j - i));
    }
  }
  return Median(std::move(slopes));
}

// Three standard errors of the difference of the medians of two thirds, were the values spread normally
// around a line of that slope.
double ScatterOfShift(const std::vector<double>& values, double slope) {
  std::vector<double> rest;
  for (size_t i = 0; i < values.size(); ++i) rest.push_back(values[i] - slope * static_cast<double>(i));
  const double level = Median(rest);
  for (double& value : rest) value = std::abs(value - level);
  // A median's error is 1.2533 that of a mean; a normal distribution's deviation 1.4826 its median distance.
  const double deviation = 1.4826 * Median(std::move(rest));
  return 3 * 1.2533 * deviation * std::sqrt(2.0 / static_cast<double>(values.size() / 3));
}

std::vector<double> WindowsThatCount(const GrowthSeries& series, size_t warm_up) {
  const size_t skipped = std::min(warm_up, series.values.size());
  return {series.values.begin() + static_cast<std::ptrdiff_t>(skipped), series.values.end()};
}

}  // namespace

double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

Growth JudgeGrowth(const GrowthSeries& series, size_t warm_up) {
  const std::vector<double> values = WindowsThatCount(series, warm_up);
  Growth growth;
  growth.limit = std::max(series.absolute_limit, series.relative_limit * Median(values));
  if (values.size() < kLeastWindows) return growth;
  const double slope = MedianSlope(values);
  growth.trend = slope * static_cast<double>(values.size() - 1);
  growth.scatter = ScatterOfShift(values, slope);
  growth.limit = std::max(growth.limit, growth.scatter);
  const Thirds thirds = MediansOfThirds(values);
  growth.shift = thirds.last - thirds.first;
  growth.grown = growth.trend > growth.limit && growth.shift > growth.limit;
  return growth;
}

std::string GrowthHeader() {
  return absl::StrFormat("%-34s %10s %10s %10s %10s  %s", "", "first", "last", "trend", "limit", "");
}

std::string GrowthLine(const GrowthSeries& series, size_t warm_up) {
  const std::vector<double> values = WindowsThatCount(series, warm_up);
  const Growth growth = JudgeGrowth(series, warm_up);
  const Thirds thirds = values.size() < kLeastWindows ? Thirds{} : MediansOfThirds(values);
  return absl::StrFormat("%-34s %10.3f %10.3f %+10.3f %10.3f  %s",
                         absl::StrFormat("%s, %s", series.name, series.unit), thirds.first, thirds.last,
                         growth.trend, growth.limit, growth.grown ? "GROWS" : "ok");
}

}  // namespace lancet
