#include "coordinator/telemetry/metrics_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <httplib.h>

#include <atomic>

#include "absl/strings/str_cat.h"

namespace lancet {
namespace {

class MetricsServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto server = MetricsServer::Create(
        {.listen = "127.0.0.1:0",
         .metrics =
             [](MetricFormat format) { return format == MetricFormat::kOpenMetrics ? "open" : "plain"; },
         .health = [] { return absl::OkStatus(); },
         .readiness = [this] { return ready_ ? absl::OkStatus() : absl::UnavailableError("no group"); }});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  httplib::Result Get(const std::string& path, const httplib::Headers& headers = {}) {
    httplib::Client client("127.0.0.1", server_->port());
    client.set_connection_timeout(30);
    client.set_read_timeout(30);
    return client.Get(path, headers);
  }

  std::atomic<bool> ready_{true};
  std::unique_ptr<MetricsServer> server_;
};

TEST_F(MetricsServerTest, AnswersInTheFormatThatIsAskedFor) {
  httplib::Result plain = Get("/metrics");
  ASSERT_TRUE(plain);
  EXPECT_EQ(plain->status, 200);
  EXPECT_EQ(plain->body, "plain");
  EXPECT_EQ(plain->get_header_value("Content-Type"), "text/plain; version=0.0.4; charset=utf-8");
  httplib::Result open =
      Get("/metrics", {{"Accept", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"}});
  ASSERT_TRUE(open);
  EXPECT_EQ(open->body, "open");
  EXPECT_EQ(open->get_header_value("Content-Type"),
            "application/openmetrics-text; version=1.0.0; charset=utf-8");
}

TEST_F(MetricsServerTest, ReadinessFollowsTheService) {
  EXPECT_EQ(Get("/healthz")->status, 200);
  EXPECT_EQ(Get("/readyz")->status, 200);
  ready_ = false;
  EXPECT_EQ(Get("/healthz")->status, 200);
  httplib::Result not_ready = Get("/readyz");
  EXPECT_EQ(not_ready->status, 503);
  EXPECT_EQ(not_ready->body, "no group\n");
}

TEST_F(MetricsServerTest, NothingElseIsThere) {
  EXPECT_EQ(Get("/")->status, 404);
  EXPECT_EQ(Get("/metrics/../etc/passwd")->status, 404);
  httplib::Client client("127.0.0.1", server_->port());
  EXPECT_NE(client.Post("/metrics", std::string(100000, 'x'), "text/plain")->status, 200);
}

TEST_F(MetricsServerTest, ClientsThatSayNothingDoNotKeepOthersOut) {
  // More than it has threads and places; each costs at most its timeout.
  std::vector<int> idle;
  for (int i = 0; i < 6; ++i) {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(server_->port()));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ASSERT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    idle.push_back(fd);
  }
  httplib::Result answer = Get("/healthz");
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->status, 200);
  for (const int fd : idle) close(fd);
}

TEST(MetricsServerCreateTest, SaysWhatIsWrongWithTheAddress) {
  MetricsServer::Options options{.listen = "nonsense", .metrics = {}, .health = {}, .readiness = {}};
  EXPECT_EQ(MetricsServer::Create(options).status().code(), absl::StatusCode::kInvalidArgument);
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(listen(fd, 1), 0);
  ASSERT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size), 0);
  options.listen = absl::StrCat("127.0.0.1:", ntohs(address.sin_port));
  const auto taken = MetricsServer::Create(options);
  EXPECT_EQ(taken.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(taken.status().message()), ::testing::HasSubstr(options.listen));
  close(fd);
}

}  // namespace
}  // namespace lancet
