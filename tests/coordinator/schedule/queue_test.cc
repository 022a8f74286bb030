#include "coordinator/schedule/queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace lancet {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr absl::Duration kAgeing = absl::Seconds(30);
const absl::Time kStart = absl::FromUnixSeconds(1000);

RequestState Request(uint64_t id, Priority priority, absl::Time arrival = kStart) {
  RequestState state;
  state.id = id;
  state.priority = priority;
  state.arrival = arrival;
  return state;
}

std::vector<uint64_t> Ids(const std::vector<const RequestState*>& order) {
  std::vector<uint64_t> ids;
  for (const RequestState* request : order) ids.push_back(request->id);
  return ids;
}

TEST(RequestQueueTest, OrdersByPriorityThenDeadlineThenArrival) {
  RequestQueue queue(10, kAgeing);
  const RequestState low = Request(1, Priority::kLow);
  const RequestState late = Request(2, Priority::kNormal, kStart + absl::Seconds(2));
  const RequestState early = Request(3, Priority::kNormal, kStart + absl::Seconds(1));
  RequestState urgent = Request(4, Priority::kNormal, kStart + absl::Seconds(3));
  urgent.deadline = kStart + absl::Minutes(1);
  const RequestState high = Request(5, Priority::kHigh, kStart + absl::Seconds(4));
  for (const RequestState* request : std::vector<const RequestState*>{&low, &late, &early, &urgent, &high}) {
    ASSERT_TRUE(queue.Push(request).ok());
  }
  EXPECT_THAT(Ids(queue.InOrder(kStart + absl::Seconds(5))), ElementsAre(5, 4, 3, 2, 1));
}

TEST(RequestQueueTest, WaitingRaisesTheLevelWithoutACap) {
  const RequestState low = Request(1, Priority::kLow);
  const RequestState high = Request(2, Priority::kHigh, kStart + absl::Seconds(95));
  EXPECT_FALSE(GoesBefore(low, Request(3, Priority::kHigh), kStart, kAgeing));
  // After three periods LOW stands at level 4, a fresh HIGH at 3.
  EXPECT_TRUE(GoesBefore(low, high, kStart + absl::Seconds(95), kAgeing));
  EXPECT_FALSE(GoesBefore(high, low, kStart + absl::Seconds(95), kAgeing));
}

TEST(RequestQueueTest, RefusesBeyondItsCapacityAndNamesIt) {
  RequestQueue queue(2, kAgeing);
  const RequestState a = Request(1, Priority::kNormal);
  const RequestState b = Request(2, Priority::kNormal);
  const RequestState c = Request(3, Priority::kHigh);
  ASSERT_TRUE(queue.Push(&a).ok());
  ASSERT_TRUE(queue.Push(&b).ok());
  const absl::Status full = queue.Push(&c);
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(full.message()), HasSubstr("limit is 2"));
  EXPECT_TRUE(queue.Remove(1));
  EXPECT_FALSE(queue.Remove(1));
  EXPECT_TRUE(queue.Push(&c).ok());
  EXPECT_THAT(Ids(queue.InOrder(kStart)), ElementsAre(3, 2));
}

}  // namespace
}  // namespace lancet
