#include "worker/collective/local_collective.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace lancet {
namespace {

using testing::ElementsAre;

class SingleRankCollectiveTest : public testing::Test {
 protected:
  void SetUp() override {
    auto made = SingleRankCollective::Create(4);
    ASSERT_TRUE(made.ok()) << made.status();
    collective_ = *std::move(made);
  }

  // A collective of one rank never waits, so a deadline in the past does no harm.
  const absl::Time deadline_ = absl::InfinitePast();
  std::unique_ptr<SingleRankCollective> collective_;
};

TEST_F(SingleRankCollectiveTest, SumIsThePartialWithoutACopy) {
  auto buffer = collective_->PartialSumBuffer(3);
  ASSERT_TRUE(buffer.ok()) << buffer.status();
  (*buffer)[0] = 1;
  (*buffer)[1] = 2;
  (*buffer)[2] = 3;
  auto sum = collective_->AllReduceSum(*buffer, deadline_);
  ASSERT_TRUE(sum.ok()) << sum.status();
  EXPECT_THAT(*sum, ElementsAre(1, 2, 3));
  EXPECT_EQ(sum->data(), buffer->data());
}

TEST_F(SingleRankCollectiveTest, ResultSurvivesTheFillingOfTheNextPartial) {
  const std::vector<float> mine = {7, 8};
  auto sum = collective_->AllReduceSum(mine, deadline_);
  ASSERT_TRUE(sum.ok()) << sum.status();
  auto next = collective_->PartialSumBuffer(4);
  ASSERT_TRUE(next.ok()) << next.status();
  std::fill(next->begin(), next->end(), 0.0f);
  EXPECT_THAT(*sum, ElementsAre(7, 8));
}

TEST_F(SingleRankCollectiveTest, GatherBroadcastAndBarrierKeepTheOwnBytes) {
  const std::vector<std::byte> mine = {std::byte{1}, std::byte{2}};
  std::vector<std::byte> all(2);
  EXPECT_TRUE(collective_->AllGather(mine, absl::MakeSpan(all), deadline_).ok());
  EXPECT_EQ(all, mine);
  EXPECT_TRUE(collective_->Broadcast(absl::MakeSpan(all), 0, deadline_).ok());
  EXPECT_EQ(all, mine);
  EXPECT_TRUE(collective_->Barrier(deadline_).ok());
}

TEST_F(SingleRankCollectiveTest, BadArgumentsAreNamedAndBreakIt) {
  EXPECT_EQ(collective_->PartialSumBuffer(5).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(collective_->Barrier(deadline_).ok());
  const std::vector<float> too_many(5);
  const absl::Status refused = collective_->AllReduceSum(too_many, deadline_).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.message()), testing::HasSubstr("capacity of 4"));
  EXPECT_EQ(collective_->Barrier(deadline_), refused);
}

TEST_F(SingleRankCollectiveTest, AbortFromAnotherThreadEndsAllLaterCalls) {
  std::thread([&] { collective_->Abort(absl::CancelledError("the epoch is over")); }).join();
  const absl::Status expected = absl::CancelledError("the epoch is over");
  std::vector<std::byte> none;
  EXPECT_EQ(collective_->Barrier(deadline_), expected);
  EXPECT_EQ(collective_->PartialSumBuffer(1).status(), expected);
  EXPECT_EQ(collective_->AllReduceSum({}, deadline_).status(), expected);
  EXPECT_EQ(collective_->AllGather({}, {}, deadline_), expected);
  EXPECT_EQ(collective_->Broadcast(absl::MakeSpan(none), 0, deadline_), expected);
}

}  // namespace
}  // namespace lancet
