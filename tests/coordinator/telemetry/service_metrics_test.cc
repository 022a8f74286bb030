#include "coordinator/telemetry/service_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lancet {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

const SystemClock kClock;

ServiceMetrics::Options TestOptions() {
  return {.clock = &kClock,
          .version = "9.9",
          .model = "m",
          .fingerprint = "f00d",
          .quantization = "q",
          .cache_token_bytes = 100};
}

RequestOutcome Drawn() {
  RequestOutcome outcome;
  outcome.id = 0xabc;
  outcome.group = "g";
  outcome.timings.queue = absl::Milliseconds(2);
  outcome.timings.denoise = absl::Seconds(2);
  outcome.timings.total = absl::Seconds(3);
  return outcome;
}

TEST(ServiceMetricsTest, CountsOutcomesByTaskCodeAndReason) {
  ServiceMetrics metrics(TestOptions());
  metrics.OnOutcome(Drawn());
  RequestOutcome refused;
  refused.origin.task = RequestTask::kEdit;
  refused.status = absl::ResourceExhaustedError("full");
  refused.reason = RejectReason::kQueueFull;
  metrics.OnOutcome(refused);
  const std::string text = metrics.Render({}, MetricFormat::kOpenMetrics);
  EXPECT_THAT(text, AllOf(HasSubstr("lancet_requests_total{task=\"generate\",code=\"OK\"} 1\n"),
                          HasSubstr("lancet_requests_total{task=\"edit\",code=\"RESOURCE_EXHAUSTED\"} 1\n"),
                          HasSubstr("lancet_requests_total{task=\"describe\",code=\"OK\"} 0\n"),
                          HasSubstr("lancet_requests_rejected_total{reason=\"queue_full\"} 1\n")));
  EXPECT_THAT(text, HasSubstr("lancet_request_seconds_sum{task=\"generate\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("lancet_stage_seconds_sum{stage=\"denoise\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("# {request_id=\"0000000000000abc\"} 3\n"));
  // Neither ran nor succeeded.
  EXPECT_THAT(text, Not(HasSubstr("lancet_queue_seconds_count{task=\"edit\"}")));
  EXPECT_THAT(text,
              AllOf(HasSubstr("lancet_build_info{version=\"9.9\"} 1\n"),
                    HasSubstr("lancet_model_info{model=\"m\",fingerprint=\"f00d\",quantization=\"q\"} 1\n")));
}

TEST(ServiceMetricsTest, CallsThatJoinedAreCountedWithoutTheTimesOfTheRequest) {
  ServiceMetrics metrics(TestOptions());
  metrics.OnOutcome(Drawn());
  RequestOutcome joined;
  joined.id = 0xdef;
  joined.joined = 0xabc;
  joined.timings.total = absl::Seconds(50);
  metrics.OnOutcome(joined);
  const std::string text = metrics.Render({}, MetricFormat::kPrometheus);
  EXPECT_THAT(text, AllOf(HasSubstr("lancet_requests_total{task=\"generate\",code=\"OK\"} 2\n"),
                          HasSubstr("lancet_request_seconds_sum{task=\"generate\"} 3\n"),
                          HasSubstr("lancet_queue_seconds_count{task=\"generate\"} 1\n")));
}

TEST(ServiceMetricsTest, RanksThatAreGoneReadZero) {
  ServiceMetrics metrics(TestOptions());
  ServiceMetrics::Readings readings;
  readings.serving = true;
  readings.status.waiting = 4;
  readings.status.groups = {{.name = "g",
                             .world_size = 2,
                             .serving = true,
                             .active_requests = 1,
                             .device = "d",
                             .has_vision = false,
                             .ranks_there = {true, false},
                             .cache_tokens = 7,
                             .max_cache_tokens = 50}};
  std::string text = metrics.Render(readings, MetricFormat::kPrometheus);
  EXPECT_THAT(text, AllOf(HasSubstr("lancet_worker_up{group=\"g\",rank=\"0\"} 1\n"),
                          HasSubstr("lancet_worker_up{group=\"g\",rank=\"1\"} 0\n"),
                          HasSubstr("lancet_kv_cache_bytes{group=\"g\"} 700\n"),
                          HasSubstr("lancet_kv_cache_limit_bytes{group=\"g\"} 5000\n"),
                          HasSubstr("lancet_requests_waiting 4\n"),
                          HasSubstr("lancet_serving{service=\"lancet.v1.ImageService\"} 1\n"),
                          HasSubstr("lancet_serving{service=\"lancet.v1.TextService\"} 0\n")));
  EXPECT_THAT(text, Not(HasSubstr("process_resident_memory_bytes 0\n")));
  text = metrics.Render({}, MetricFormat::kPrometheus);
  EXPECT_THAT(text, AllOf(HasSubstr("lancet_worker_up{group=\"g\",rank=\"0\"} 0\n"),
                          Not(HasSubstr("lancet_kv_cache_bytes{"))));
}

TEST(ServiceMetricsTest, EveryOtherEventHasItsNumber) {
  ServiceMetrics metrics(TestOptions());
  metrics.OnIterationSent("g", 258, 3);
  metrics.OnIterationDone("g", absl::Milliseconds(250));
  metrics.OnFirstPreview(1, RequestTask::kEdit, absl::Seconds(1));
  metrics.OnFirstToken(2, absl::Seconds(2));
  metrics.OnGroupLost("g", 5);
  metrics.OnResumed(3);
  metrics.OnReceived(RequestTask::kDescribe, 1000);
  metrics.OnSent(RequestTask::kDescribe, 30);
  metrics.OnRankRefused();
  EXPECT_THAT(metrics.Render({}, MetricFormat::kPrometheus),
              AllOf(HasSubstr("lancet_iteration_rows_sum{group=\"g\"} 258\n"),
                    HasSubstr("lancet_iteration_requests_sum{group=\"g\"} 3\n"),
                    HasSubstr("lancet_iteration_seconds_sum{group=\"g\"} 0.25\n"),
                    HasSubstr("lancet_time_to_first_preview_seconds_count{task=\"edit\"} 1\n"),
                    HasSubstr("lancet_time_to_first_token_seconds_sum 2\n"),
                    HasSubstr("lancet_group_losses_total{group=\"g\"} 1\n"),
                    HasSubstr("lancet_requests_interrupted_total{group=\"g\"} 5\n"),
                    HasSubstr("lancet_request_resumes_total 1\n"),
                    HasSubstr("lancet_received_bytes_total{task=\"describe\"} 1000\n"),
                    HasSubstr("lancet_sent_bytes_total{task=\"describe\"} 30\n"),
                    HasSubstr("lancet_worker_connections_refused_total 1\n")));
}

TEST(RecentErrorsTest, KeepsTheLastOnesAndNoneThatClientsMade) {
  RecentErrors errors;
  errors.Add(Drawn(), absl::FromUnixSeconds(1));
  RequestOutcome outcome;
  outcome.status = absl::CancelledError("gone");
  errors.Add(outcome, absl::FromUnixSeconds(2));
  for (uint64_t id = 1; id <= RecentErrors::kMaxErrors + 5; ++id) {
    outcome.id = id;
    outcome.status = absl::UnavailableError("no group");
    errors.Add(outcome, absl::FromUnixSeconds(3));
  }
  const RecentErrors::Summary summary = errors.Read();
  EXPECT_EQ(summary.succeeded, 1);
  EXPECT_EQ(summary.failed, static_cast<int64_t>(RecentErrors::kMaxErrors + 5));
  ASSERT_EQ(summary.errors.size(), RecentErrors::kMaxErrors);
  EXPECT_EQ(summary.errors.front().request_id, RecentErrors::kMaxErrors + 5);
  EXPECT_EQ(summary.errors.front().status.code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace lancet
