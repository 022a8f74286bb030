// Debian's Prometheus with the alert rules of k8s/monitoring against real processes.
#include <httplib.h>
#include <signal.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/await_condition.h"
#include "tests/integration/cluster.h"
#include "tests/integration/requests.h"

namespace lancet {
namespace {

using ::testing::HasSubstr;

constexpr char kFolder[] = LANCET_SOURCE_DIR "/k8s/monitoring";

std::string RunToEnd(const std::vector<std::string>& arguments, const std::string& log, int& exit_code) {
  auto process = Process::Start(arguments, log);
  if (!process.ok()) return process.status().ToString();
  const auto end = (*process)->AwaitEnd(kClusterDeadline);
  exit_code = end.has_value() ? end->exit_code.value_or(-1) : -1;
  return (*process)->Log();
}

// A port that was free a moment ago: Prometheus does not say which one it took.
int FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  EXPECT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size), 0);
  close(fd);
  return ntohs(address.sin_port);
}

class PrometheusTest : public testing::Test {
 protected:
  void SetUp() override {
    ClusterOptions options = NanoCluster(2);
    options.coordinator_flags.push_back("--metrics_listen=127.0.0.1:0");
    auto cluster = Cluster::Start(std::move(options));
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    cluster_ = *std::move(cluster);
    const std::string config = cluster_->dir() + "/prometheus.yaml";
    std::ofstream(config)
        << "global: {scrape_interval: 500ms, evaluation_interval: 500ms}\n"
        << "rule_files: ['" << kFolder << "/alerts.yaml']\n"
        << "scrape_configs:\n  - job_name: lancet\n    static_configs: [{targets: ['127.0.0.1:"
        << cluster_->metrics_port() << "']}]\n";
    port_ = FreePort();
    auto prometheus = Process::Start({LANCET_PROMETHEUS, "--config.file=" + config,
                                      "--storage.tsdb.path=" + cluster_->dir() + "/prometheus",
                                      absl::StrCat("--web.listen-address=127.0.0.1:", port_)},
                                     cluster_->dir() + "/prometheus.log");
    ASSERT_TRUE(prometheus.ok()) << prometheus.status();
    prometheus_ = *std::move(prometheus);
    ASSERT_TRUE(AwaitCondition([this] { return Value("up{job=\"lancet\"}") == 1; }, kClusterDeadline))
        << prometheus_->Log();
  }

  nlohmann::json Get(const std::string& path, const httplib::Params& parameters = {}) const {
    httplib::Client client("127.0.0.1", port_);
    httplib::Result answer = client.Get(path, parameters, httplib::Headers());
    return answer ? nlohmann::json::parse(answer->body, nullptr, false) : nlohmann::json();
  }
  // Of the one series that the expression gives; NaN if there is not just one.
  double Value(const std::string& expression) const {
    const nlohmann::json json = Get("/api/v1/query", {{"query", expression}});
    if (!json.is_object() || json.value("status", "") != "success") return NAN;
    const nlohmann::json& result = json["data"]["result"];
    return result.size() == 1 ? std::stod(result[0]["value"][1].get<std::string>()) : NAN;
  }
  bool Fires(const std::string& alert) const {
    const nlohmann::json json = Get("/api/v1/alerts");
    if (!json.is_object() || json.value("status", "") != "success") return false;
    const nlohmann::json& alerts = json["data"]["alerts"];
    return std::any_of(alerts.begin(), alerts.end(), [&alert](const nlohmann::json& one) {
      return one["labels"].value("alertname", "") == alert && one["state"] == "firing";
    });
  }

  std::unique_ptr<Cluster> cluster_;
  int port_ = 0;
  std::unique_ptr<Process> prometheus_;
};

TEST_F(PrometheusTest, SeesRequestsAndAKilledRank) {
  EventLog events;
  ASSERT_TRUE(cluster_->client().Generate(MakeRequest("a cat", 3), &events, nullptr).ok());
  EXPECT_TRUE(
      AwaitCondition([this] { return Value("lancet_requests_total{task=\"generate\",code=\"OK\"}") == 1; },
                     kClusterDeadline));
  EXPECT_EQ(Value("sum(lancet_worker_up)"), 2);
  EXPECT_EQ(Value("count(lancet_build_info)"), 1);
  EXPECT_FALSE(Fires("LancetWorkerDown"));
  cluster_->worker(1).Signal(SIGKILL);
  EXPECT_TRUE(
      AwaitCondition([this] { return Value("lancet_worker_up{rank=\"1\"}") == 0; }, absl::Seconds(5)));
  EXPECT_TRUE(AwaitCondition([this] { return Fires("LancetWorkerDown"); }, kClusterDeadline));
  ASSERT_TRUE(cluster_->StartWorker(1).ok());
  EXPECT_TRUE(AwaitCondition([this] { return !Fires("LancetWorkerDown"); }, kClusterDeadline));
  EXPECT_EQ(Value("sum(lancet_worker_up)"), 2);
}

TEST_F(PrometheusTest, EveryExpressionOfTheBoardIsUnderstoodAndEveryMetricExists) {
  EventLog events;
  ASSERT_TRUE(cluster_->client().Generate(MakeRequest("a cat", 3), &events, nullptr).ok());
  std::ifstream file(std::string(kFolder) + "/board.json");
  const nlohmann::json board = nlohmann::json::parse(file, nullptr, false);
  ASSERT_TRUE(board.is_object());
  httplib::Client client("127.0.0.1", cluster_->metrics_port());
  httplib::Result metrics = client.Get("/metrics");
  ASSERT_TRUE(metrics);
  int expressions = 0;
  for (const nlohmann::json& panel : board["panels"]) {
    for (const nlohmann::json& target : panel["targets"]) {
      std::string expression = target["expr"];
      for (size_t at = 0; (at = expression.find("$__rate_interval")) != std::string::npos;) {
        expression.replace(at, std::string("$__rate_interval").size(), "1m");
      }
      EXPECT_EQ(Get("/api/v1/query", {{"query", expression}}).value("status", ""), "success") << expression;
      ++expressions;
      // The names in it, with what histograms add to theirs taken off.
      for (size_t at = expression.find("lancet_"); at != std::string::npos;
           at = expression.find("lancet_", at + 1)) {
        std::string name = expression.substr(at, expression.find_first_of("[{ )", at) - at);
        for (const std::string suffix : {"_bucket", "_sum", "_count"}) {
          if (name.ends_with(suffix)) name.resize(name.size() - suffix.size());
        }
        EXPECT_THAT(metrics->body, HasSubstr("# TYPE " + name + " ")) << expression;
      }
    }
  }
  EXPECT_GT(expressions, 20);
}

TEST(AlertRulesTest, PromtoolFindsThemSoundAndTheirTestsPass) {
  int exit_code = -1;
  const std::string log = testing::TempDir() + "/promtool.log";
  EXPECT_THAT(
      RunToEnd({LANCET_PROMTOOL, "check", "rules", std::string(kFolder) + "/alerts.yaml"}, log, exit_code),
      HasSubstr("SUCCESS"));
  EXPECT_EQ(exit_code, 0);
  EXPECT_THAT(RunToEnd({LANCET_PROMTOOL, "test", "rules", std::string(kFolder) + "/alerts_test.yaml"}, log,
                       exit_code),
              HasSubstr("SUCCESS"));
  EXPECT_EQ(exit_code, 0);
}

TEST(AlertRulesTest, PromtoolFindsTheMetricsThemselvesSound) {
  ClusterOptions options = NanoCluster(1);
  options.coordinator_flags.push_back("--metrics_listen=127.0.0.1:0");
  auto cluster = Cluster::Start(std::move(options));
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  httplib::Client client("127.0.0.1", (*cluster)->metrics_port());
  httplib::Result metrics = client.Get("/metrics");
  ASSERT_TRUE(metrics);
  const std::string file = (*cluster)->dir() + "/metrics.txt";
  std::ofstream(file) << metrics->body;
  int exit_code = -1;
  const std::string said = RunToEnd(
      {"/bin/sh", "-c", absl::StrCat(LANCET_PROMTOOL " check metrics < ", file)}, file + ".log", exit_code);
  EXPECT_EQ(exit_code, 0) << said;
}

}  // namespace
}  // namespace lancet
