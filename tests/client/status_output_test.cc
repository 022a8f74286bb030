#include "client/status_output.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace lancet {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

ServerStatus Busy() {
  ServerStatus status;
  status.server_version = "1.2";
  status.model = "demo";
  status.uptime = absl::Seconds(3723.4);
  status.waiting = 3;
  status.max_queue = 64;
  status.running = 2;
  status.calls = 6;
  status.requests_succeeded = 100;
  status.requests_failed = 2;
  status.groups = {{.name = "default",
                    .state = "serving",
                    .active_requests = 2,
                    .device = "cpu",
                    .rank_connected = {true, false},
                    .cache_tokens = 500,
                    .max_cache_tokens = 1000}};
  for (int i = 0; i < 2; ++i) {
    status.recent_errors.push_back({.request_id = i == 0 ? "00ff" : "00fe",
                                    .age = absl::Seconds(90),
                                    .task = "edit",
                                    .code = "UNAVAILABLE",
                                    .message = "no\x1b[2J group",
                                    .token = "alice"});
  }
  return status;
}

TEST(StatusTextTest, FitsAScreen) {
  EXPECT_EQ(StatusText(Busy(), 1),
            "demo, version 1.2, up 1h2m3s\n"
            "queue: 3 of 64, running: 2, calls: 6\n"
            "requests: 100 succeeded, 2 failed\n"
            "group default: serving, 1 of 2 ranks, 2 requests, cache 500 of 1000 tokens, cpu\n"
            "error 1m30s ago: edit 00ff of alice: UNAVAILABLE: no [2J group\n");
  EXPECT_THAT(StatusText(Busy(), 9), HasSubstr("00fe"));
  ServerStatus empty;
  empty.draining = true;
  EXPECT_THAT(StatusText(empty, 9), HasSubstr(", draining\n"));
  EXPECT_THAT(StatusText(empty, 9), HasSubstr("no group of workers\n"));
}

TEST(StatusJsonTest, IsOneObject) {
  const std::string text = StatusJson(Busy());
  EXPECT_THAT(text, Not(HasSubstr("\n")));
  const nlohmann::json json = nlohmann::json::parse(text);
  EXPECT_EQ(json["waiting"], 3);
  EXPECT_EQ(json["groups"][0]["rank_connected"][1], false);
  EXPECT_EQ(json["recent_errors"][1]["request_id"], "00fe");
  EXPECT_EQ(json["recent_errors"][0]["age_s"], 90);
}

}  // namespace
}  // namespace lancet
