#include "coordinator/telemetry/metric.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"

namespace lancet {
namespace {

using ::testing::HasSubstr;

TEST(MetricRegistryTest, RendersWhatPrometheusReads) {
  MetricRegistry registry;
  registry.AddCounter("jobs_total", "Jobs.", {"kind", "code"}).With({"a", "O\"K\\\n"}).Add(3);
  registry.AddGauge("bytes", "Bytes.").With({}).Set(1234567890);
  Histogram& seconds = registry.AddHistogram("took_seconds", "Time.", {0.5, 2}, {"kind"}).With({"a"});
  seconds.Observe(0.5, "00ff");  // a bound belongs to its bucket
  seconds.Observe(1);
  seconds.Observe(7.25, "0001");
  EXPECT_EQ(registry.Render(MetricFormat::kPrometheus),
            "# HELP jobs_total Jobs.\n# TYPE jobs_total counter\n"
            "jobs_total{kind=\"a\",code=\"O\\\"K\\\\\\n\"} 3\n"
            "# HELP bytes Bytes.\n# TYPE bytes gauge\nbytes 1234567890\n"
            "# HELP took_seconds Time.\n# TYPE took_seconds histogram\n"
            "took_seconds_bucket{kind=\"a\",le=\"0.5\"} 1\n"
            "took_seconds_bucket{kind=\"a\",le=\"2\"} 2\n"
            "took_seconds_bucket{kind=\"a\",le=\"+Inf\"} 3\n"
            "took_seconds_sum{kind=\"a\"} 8.75\ntook_seconds_count{kind=\"a\"} 3\n");
  const std::string open = registry.Render(MetricFormat::kOpenMetrics);
  EXPECT_THAT(open, HasSubstr("# TYPE jobs counter\njobs_total{"));
  EXPECT_THAT(open, HasSubstr("le=\"0.5\"} 1 # {request_id=\"00ff\"} 0.5\n"));
  EXPECT_THAT(open, HasSubstr("le=\"2\"} 2\n"));
  EXPECT_THAT(open, HasSubstr("le=\"+Inf\"} 3 # {request_id=\"0001\"} 7.25\n"));
  EXPECT_TRUE(open.ends_with("# EOF\n"));
}

TEST(FamilyTest, CountsWhatIsBeyondItsSeriesUnderOther) {
  MetricRegistry registry;
  Family<Counter>& family = registry.AddCounter("x_total", "X.", {"name"});
  for (int i = 0; i < 1000; ++i) family.With({absl::StrCat(i)}).Add();
  int series = 0;
  uint64_t sum = 0;
  uint64_t other = 0;
  family.Visit([&](const LabelValues& values, const Counter& counter) {
    ++series;
    sum += counter.value();
    if (values[0] == "other") other = counter.value();
  });
  EXPECT_EQ(series, static_cast<int>(MetricRegistry::kMaxSeries) + 1);
  EXPECT_EQ(sum, 1000u);
  EXPECT_EQ(other, 1000 - MetricRegistry::kMaxSeries);
}

TEST(FamilyTest, ThreadsCountTogetherWhileOthersRead) {
  MetricRegistry registry;
  Family<Counter>& counters = registry.AddCounter("x_total", "X.", {"name"});
  Family<Histogram>& histograms = registry.AddHistogram("y", "Y.", {1});
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < 1000; ++n) {
        counters.With({absl::StrCat(n % 7)}).Add();
        histograms.With({}).Observe(n % 2 * 2, "a");
        if (n % 100 != 0) continue;
        EXPECT_FALSE(registry.Render(MetricFormat::kOpenMetrics).empty());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  uint64_t sum = 0;
  counters.Visit([&](const LabelValues&, const Counter& counter) { sum += counter.value(); });
  EXPECT_EQ(sum, 4000u);
  const Histogram::Snapshot read = histograms.With({}).Read();
  EXPECT_EQ(read.counts, (std::vector<uint64_t>{2000, 2000}));
  EXPECT_EQ(read.sum, 4000);
}

TEST(ExponentialBoundsTest, Multiplies) {
  EXPECT_EQ(ExponentialBounds(1, 4, 3), (std::vector<double>{1, 4, 16}));
}

}  // namespace
}  // namespace lancet
