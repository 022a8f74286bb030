// What monitors see of real processes: metrics, health over HTTP, logs that a trace can be followed through.
#include <httplib.h>
#include <signal.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/await_condition.h"
#include "tests/integration/cluster.h"
#include "tests/integration/requests.h"

namespace lancet {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kTrace[] = "4bf92f3577b34da6a3ce929d0e0e4736";
constexpr char kPrompt[] = "a secret zebra";

class ObservabilityTest : public testing::Test {
 protected:
  void SetUp() override {
    ClusterOptions options = NanoCluster(2);
    options.coordinator_flags.insert(options.coordinator_flags.end(),
                                     {"--metrics_listen=127.0.0.1:0", "--log_format=json"});
    options.worker_flags.push_back("--log_format=json");
    auto cluster = Cluster::Start(std::move(options));
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    cluster_ = *std::move(cluster);
    ASSERT_NE(cluster_->metrics_port(), 0);
  }

  std::pair<int, std::string> Get(const std::string& path) const {
    httplib::Client client("127.0.0.1", cluster_->metrics_port());
    httplib::Result answer = client.Get(path);
    return answer ? std::pair(answer->status, answer->body) : std::pair(0, std::string());
  }
  std::string Metrics() const { return Get("/metrics").second; }

  std::unique_ptr<Cluster> cluster_;
};

// Lines of a log that are about a request, as JSON; fails on a line that is none.
std::vector<nlohmann::json> LinesOfTrace(const std::string& log) {
  std::vector<nlohmann::json> lines;
  std::istringstream stream(log);
  for (std::string line; std::getline(stream, line);) {
    nlohmann::json json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    EXPECT_TRUE(json.is_object()) << line;
    if (json.is_object() && json.value("trace_id", "") == kTrace) lines.push_back(std::move(json));
  }
  return lines;
}

TEST_F(ObservabilityTest, MetricsAndLogsTellOfARequest) {
  EXPECT_EQ(Get("/healthz").first, 200);
  EXPECT_EQ(Get("/readyz").first, 200);
  GenerationRequest request = MakeRequest(kPrompt, 4);
  request.preview_every_steps = 1;
  request.traceparent = std::string("00-") + kTrace + "-00f067aa0ba902b7-01";
  EventLog events;
  ASSERT_TRUE(cluster_->client().Generate(request, &events, nullptr).ok());
  ASSERT_EQ(events.started.size(), 1u);

  const std::string metrics = Metrics();
  EXPECT_THAT(metrics, HasSubstr("lancet_requests_total{task=\"generate\",code=\"OK\"} 1\n"));
  EXPECT_THAT(metrics, HasSubstr("lancet_worker_up{group=\"default\",rank=\"1\"} 1\n"));
  EXPECT_THAT(metrics, HasSubstr("lancet_time_to_first_preview_seconds_count{task=\"generate\"} 1\n"));
  EXPECT_THAT(metrics, HasSubstr("lancet_stage_seconds_count{stage=\"denoise\"} 1\n"));
  EXPECT_THAT(metrics, HasSubstr("lancet_kv_cache_bytes{group=\"default\"} 0\n"));
  EXPECT_THAT(metrics, Not(HasSubstr("lancet_kv_cache_limit_bytes{group=\"default\"} 0\n")));
  EXPECT_THAT(metrics, Not(HasSubstr("lancet_iteration_rows_count{group=\"default\"} 0\n")));

  // One line for the outcome, and one on every rank that worked on it.
  const std::vector<nlohmann::json> lines = LinesOfTrace(cluster_->coordinator().Log());
  ASSERT_EQ(lines.size(), 1u) << cluster_->coordinator().Log();
  EXPECT_EQ(lines[0]["message"], "request");
  EXPECT_EQ(lines[0]["request_id"], events.started[0].request_id);
  EXPECT_EQ(lines[0]["code"], "OK");
  EXPECT_EQ(lines[0]["task"], "generate");
  EXPECT_EQ(lines[0]["steps"], 4);
  EXPECT_TRUE(lines[0]["total_s"].is_number());
  for (int rank : {0, 1}) {
    const std::vector<nlohmann::json> of_rank = LinesOfTrace(cluster_->worker(rank).Log());
    ASSERT_EQ(of_rank.size(), 1u) << cluster_->worker(rank).Log();
    EXPECT_EQ(of_rank[0]["request_id"], events.started[0].request_id);
  }
  EXPECT_THAT(cluster_->Logs(), Not(HasSubstr("zebra")));
  EXPECT_THAT(metrics, Not(HasSubstr(kTrace)));
}

TEST_F(ObservabilityTest, AKilledRankShowsWithinThreeSeconds) {
  cluster_->worker(1).Signal(SIGKILL);
  EXPECT_TRUE(AwaitCondition(
      [this] {
        return Get("/readyz").first == 503 &&
               Metrics().find("lancet_worker_up{group=\"default\",rank=\"1\"} 0\n") != std::string::npos;
      },
      absl::Seconds(3)))
      << Metrics();
  EXPECT_EQ(Get("/healthz").first, 200);
  EXPECT_EQ(Get("/readyz").second, "no healthy group of workers\n");
  EXPECT_THAT(Metrics(), HasSubstr("lancet_worker_up{group=\"default\",rank=\"0\"} 1\n"));
  EXPECT_THAT(Metrics(), HasSubstr("lancet_group_losses_total{group=\"default\"} 1\n"));
  ASSERT_TRUE(cluster_->StartWorker(1).ok());
  EXPECT_TRUE(AwaitCondition([this] { return Get("/readyz").first == 200; }, kClusterDeadline));
  EXPECT_THAT(Metrics(), HasSubstr("lancet_worker_up{group=\"default\",rank=\"1\"} 1\n"));
}

}  // namespace
}  // namespace lancet
