#include "coordinator/telemetry/metric.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"

namespace lancet {
namespace {

// What the formats escape in the values of labels.
std::string Escaped(absl::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\' || c == '"') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else {
      out += c;
    }
  }
  return out;
}

std::string Number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
  // Whole numbers, such as bytes, in full.
  if (value == std::floor(value) && std::fabs(value) < 1e15) return absl::StrFormat("%.0f", value);
  return absl::StrFormat("%.9g", value);
}

// {a="x",b="y"}, with `more` as the last label; nothing if there is none.
std::string Labels(const std::vector<std::string>& names, const LabelValues& values, std::string more = "") {
  std::string out;
  for (size_t i = 0; i < names.size(); ++i) {
    absl::StrAppend(&out, out.empty() ? "" : ",", names[i], "=\"", Escaped(values[i]), "\"");
  }
  if (!more.empty()) absl::StrAppend(&out, out.empty() ? "" : ",", more);
  return out.empty() ? "" : absl::StrCat("{", out, "}");
}

void AppendHistogram(const std::string& name, const std::vector<std::string>& labels,
                     const LabelValues& values, const Histogram& histogram, bool exemplars,
                     std::string& text) {
  const Histogram::Snapshot read = histogram.Read();
  uint64_t count = 0;
  for (size_t i = 0; i < read.counts.size(); ++i) {
    count += read.counts[i];
    const std::string bound = i < histogram.bounds().size() ? Number(histogram.bounds()[i]) : "+Inf";
    absl::StrAppend(&text, name, "_bucket", Labels(labels, values, absl::StrCat("le=\"", bound, "\"")), " ",
                    count);
    if (exemplars && !read.exemplars[i].request_id.empty()) {
      absl::StrAppend(&text, " # {request_id=\"", Escaped(read.exemplars[i].request_id), "\"} ",
                      Number(read.exemplars[i].value));
    }
    text += '\n';
  }
  absl::StrAppend(&text, name, "_sum", Labels(labels, values), " ", Number(read.sum), "\n");
  absl::StrAppend(&text, name, "_count", Labels(labels, values), " ", count, "\n");
}

}  // namespace

Histogram::Histogram(std::vector<double> bounds) : bounds_(std::move(bounds)) {
  state_.counts.resize(bounds_.size() + 1);
  state_.exemplars.resize(bounds_.size() + 1);
}

void Histogram::Observe(double value, absl::string_view request_id) {
  const auto bucket =
      static_cast<size_t>(std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin());
  const std::lock_guard<std::mutex> lock(mu_);
  ++state_.counts[bucket];
  state_.sum += value;
  if (!request_id.empty()) state_.exemplars[bucket] = {std::string(request_id), value};
}

Histogram::Snapshot Histogram::Read() const {
  const std::lock_guard<std::mutex> lock(mu_);
  return state_;
}

Family<Counter>& MetricRegistry::AddCounter(absl::string_view name, absl::string_view help,
                                            std::vector<std::string> labels) {
  Entry& entry =
      entries_.emplace_back(Entry{std::string(name), std::string(help), nullptr, nullptr, nullptr});
  entry.counter = std::make_unique<Family<Counter>>(std::move(labels), kMaxSeries,
                                                    [] { return std::make_unique<Counter>(); });
  return *entry.counter;
}

Family<Gauge>& MetricRegistry::AddGauge(absl::string_view name, absl::string_view help,
                                        std::vector<std::string> labels, size_t max_series) {
  Entry& entry =
      entries_.emplace_back(Entry{std::string(name), std::string(help), nullptr, nullptr, nullptr});
  entry.gauge = std::make_unique<Family<Gauge>>(std::move(labels), max_series,
                                                [] { return std::make_unique<Gauge>(); });
  return *entry.gauge;
}

Family<Histogram>& MetricRegistry::AddHistogram(absl::string_view name, absl::string_view help,
                                                std::vector<double> bounds, std::vector<std::string> labels) {
  Entry& entry =
      entries_.emplace_back(Entry{std::string(name), std::string(help), nullptr, nullptr, nullptr});
  entry.histogram = std::make_unique<Family<Histogram>>(
      std::move(labels), kMaxSeries,
      [bounds = std::move(bounds)] { return std::make_unique<Histogram>(bounds); });
  return *entry.histogram;
}

std::string MetricRegistry::Render(MetricFormat format) const {
  const bool open = format == MetricFormat::kOpenMetrics;
  std::string text;
  for (const Entry& entry : entries_) {
    // OpenMetrics names a family of counters without the suffix of its samples.
    const std::string family(open && entry.counter != nullptr ? absl::StripSuffix(entry.name, "_total")
                                                              : absl::string_view(entry.name));
    const absl::string_view type = entry.counter != nullptr ? "counter"
                                   : entry.gauge != nullptr ? "gauge"
                                                            : "histogram";
    absl::StrAppend(&text, "# HELP ", family, " ", entry.help, "\n# TYPE ", family, " ", type, "\n");
    if (entry.counter != nullptr) {
      entry.counter->Visit([&](const LabelValues& values, const Counter& counter) {
        absl::StrAppend(&text, entry.name, Labels(entry.counter->labels(), values), " ", counter.value(),
                        "\n");
      });
    } else if (entry.gauge != nullptr) {
      entry.gauge->Visit([&](const LabelValues& values, const Gauge& gauge) {
        absl::StrAppend(&text, entry.name, Labels(entry.gauge->labels(), values), " ", Number(gauge.value()),
                        "\n");
      });
    } else {
      entry.histogram->Visit([&](const LabelValues& values, const Histogram& histogram) {
        AppendHistogram(entry.name, entry.histogram->labels(), values, histogram, open, text);
      });
    }
  }
  if (open) text += "# EOF\n";
  return text;
}

std::vector<double> ExponentialBounds(double first, double factor, int count) {
  std::vector<double> bounds;
  for (double bound = first; static_cast<int>(bounds.size()) < count; bound *= factor)
    bounds.push_back(bound);
  return bounds;
}

}  // namespace lancet
