// Numbers that a process tells about itself, and their text for Prometheus:
// https://prometheus.io/docs/instrumenting/exposition_formats/ (plain) and the OpenMetrics text format, which
// adds exemplars: the id of a request beside the bucket that it fell into.
//
//   MetricRegistry registry;
//   Family<Counter>& requests = registry.AddCounter("lancet_requests_total", "Requests that ended",
//   {"task"}); requests.With({"edit"}).Add();
//
// Thread-safe. A family has a bounded number of series: label values beyond it are counted together under
// "other".
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace lancet {

enum class MetricFormat { kPrometheus, kOpenMetrics };

class Counter {
 public:
  void Add(uint64_t n = 1) { value_.fetch_add(n, std::memory_order_relaxed); }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

class Gauge {
 public:
  void Set(double value) { value_.store(value, std::memory_order_relaxed); }
  double value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<double> value_{0};
};

class Histogram {
 public:
  struct Exemplar {
    std::string request_id;  // empty: none
    double value = 0;
  };
  struct Snapshot {
    std::vector<uint64_t> counts;     // per bucket, the last one without an upper bound
    std::vector<Exemplar> exemplars;  // likewise
    double sum = 0;
  };

  // `bounds` ascend.
  explicit Histogram(std::vector<double> bounds);
  // `request_id` is a number of ours, never text of a client's.
  void Observe(double value, absl::string_view request_id = {});
  Snapshot Read() const;
  const std::vector<double>& bounds() const { return bounds_; }

 private:
  const std::vector<double> bounds_;
  mutable std::mutex mu_;
  Snapshot state_;  // guarded by mu_
};

using LabelValues = std::vector<std::string>;

template <typename Metric>
class Family {
 public:
  Family(std::vector<std::string> labels, size_t max_series, std::function<std::unique_ptr<Metric>()> make)
      : labels_(std::move(labels)), max_series_(max_series), make_(std::move(make)) {}

  // One value per label. The reference is good until Clear.
  Metric& With(const LabelValues& values) {
    const std::lock_guard<std::mutex> lock(mu_);
    auto found = series_.find(values);
    if (found == series_.end() && series_.size() >= max_series_) {
      found = series_.find(LabelValues(labels_.size(), "other"));
      if (found != series_.end()) return *found->second;
      return *(series_[LabelValues(labels_.size(), "other")] = make_());
    }
    if (found == series_.end()) found = series_.emplace(values, make_()).first;
    return *found->second;
  }
  // Forgets all series: for gauges of things that come and go, which one thread sets anew.
  void Clear() {
    const std::lock_guard<std::mutex> lock(mu_);
    series_.clear();
  }
  // While `visit` runs nothing comes or goes.
  void Visit(const std::function<void(const LabelValues&, const Metric&)>& visit) const {
    const std::lock_guard<std::mutex> lock(mu_);
    for (const auto& [values, metric] : series_) visit(values, *metric);
  }
  const std::vector<std::string>& labels() const { return labels_; }

 private:
  const std::vector<std::string> labels_;
  const size_t max_series_;
  const std::function<std::unique_ptr<Metric>()> make_;
  mutable std::mutex mu_;
  std::map<LabelValues, std::unique_ptr<Metric>> series_;  // guarded by mu_
};

class MetricRegistry {
 public:
  // Enough for every label of ours: at most three tasks times seventeen codes, or sixteen groups.
  static constexpr size_t kMaxSeries = 128;

  // Families live as long as the registry. Names of counters end in _total.
  Family<Counter>& AddCounter(absl::string_view name, absl::string_view help,
                              std::vector<std::string> labels = {});
  Family<Gauge>& AddGauge(absl::string_view name, absl::string_view help,
                          std::vector<std::string> labels = {}, size_t max_series = kMaxSeries);
  Family<Histogram>& AddHistogram(absl::string_view name, absl::string_view help, std::vector<double> bounds,
                                  std::vector<std::string> labels = {});

  // All families, in the order in which they were added.
  std::string Render(MetricFormat format) const;

 private:
  struct Entry {
    std::string name;
    std::string help;
    std::unique_ptr<Family<Counter>> counter;
    std::unique_ptr<Family<Gauge>> gauge;
    std::unique_ptr<Family<Histogram>> histogram;
  };
  std::vector<Entry> entries_;  // complete before a second thread comes
};

// `count` bounds from `first` on, each `factor` times the one before.
std::vector<double> ExponentialBounds(double first, double factor, int count);

}  // namespace lancet
