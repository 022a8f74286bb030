#include "coordinator/group/heartbeat.h"

#include <gtest/gtest.h>

namespace lancet {
namespace {

const absl::Time kStart = absl::FromUnixSeconds(1000);

TEST(HeartbeatTest, PingsAtTheIntervalWhileAnswersCome) {
  Heartbeat heartbeat({.interval = absl::Milliseconds(500), .timeout = absl::Seconds(2)});
  EXPECT_EQ(heartbeat.Ping(kStart), 1u);
  EXPECT_FALSE(heartbeat.Ping(kStart + absl::Seconds(1)).has_value());  // the first is unanswered
  heartbeat.OnPong(1);
  EXPECT_FALSE(heartbeat.Ping(kStart + absl::Milliseconds(499)).has_value());
  EXPECT_EQ(heartbeat.Ping(kStart + absl::Milliseconds(500)), 2u);
}

TEST(HeartbeatTest, AMissingAnswerMeansDeath) {
  Heartbeat heartbeat({.interval = absl::Milliseconds(500), .timeout = absl::Seconds(2)});
  EXPECT_FALSE(heartbeat.Dead(kStart));
  heartbeat.Ping(kStart);
  EXPECT_FALSE(heartbeat.Dead(kStart + absl::Milliseconds(1999)));
  EXPECT_TRUE(heartbeat.Dead(kStart + absl::Seconds(2)));
}

TEST(HeartbeatTest, AnOldAnswerDoesNotCount) {
  Heartbeat heartbeat({});
  heartbeat.Ping(kStart);
  heartbeat.OnPong(1);
  ASSERT_EQ(heartbeat.Ping(kStart + absl::Seconds(1)), 2u);
  heartbeat.OnPong(1);
  EXPECT_TRUE(heartbeat.Dead(kStart + absl::Seconds(3)));
}

}  // namespace
}  // namespace lancet
