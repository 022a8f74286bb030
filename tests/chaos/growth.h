// Whether something that is measured at intervals grows with the age of what it is measured of, or only
// varies.
#pragma once

#include <string>
#include <vector>

namespace lancet {

// A measure, one value a window of time, the oldest first.
struct GrowthSeries {
  std::string name;
  std::string unit;
  std::vector<double> values;
  // How much it may grow over the windows that count: the largest of a share of its median there, a number of
  // units, and what its own scatter may feign.
  double relative_limit = 0;
  double absolute_limit = 0;
};

struct Growth {
  // The slope of the line through the windows that count, the median of the slopes of all pairs (Theil and
  // Sen: up to 29 % of the windows may be anything), times their number less one.
  double trend = 0;
  // The median of their last third less that of their first.
  double shift = 0;
  // Three standard errors of `shift`, from the distances of the windows to the line (their median, so that a
  // few bad windows do not hide growth).
  double scatter = 0;
  double limit = 0;  // the largest of the series' two and `scatter`
  // Both exceed the limit: a trend alone may lie within what varies, a shift alone may be a few bad windows.
  bool grown = false;
};

// 0 for none.
double Median(std::vector<double> values);

// `warm_up` windows at the beginning do not count. Nothing is said, and nothing has grown, of fewer than
// three others.
Growth JudgeGrowth(const GrowthSeries& series, size_t warm_up);

// A line for people: name, medians of the first and the last third, trend, limit, verdict. Columns are
// aligned.
std::string GrowthLine(const GrowthSeries& series, size_t warm_up);
std::string GrowthHeader();

}  // namespace lancet
