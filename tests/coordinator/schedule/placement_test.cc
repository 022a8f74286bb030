#include "coordinator/schedule/placement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace lancet {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

const absl::Time kStart = absl::FromUnixSeconds(1000);
constexpr absl::Duration kPatience = absl::Seconds(30);

// Text of 40 rows, then steps of 500.
RequestState Picture(uint64_t id, int steps) {
  RequestState request;
  request.id = id;
  request.arrival = kStart;
  request.shape.blocks = {{40, 1, true}};
  request.shape.num_steps = steps;
  request.shape.step_rows = 500;
  request.shape.num_latents = 256;
  request.shape.cache_tokens = 50;
  return request;
}

GroupState Idle(std::optional<IterationCost> cost = std::nullopt) {
  GroupState group;
  group.limits = {.max_requests = 2,
                  .max_rows = 2000,
                  .cache_tokens = 1000,
                  .max_latents = 1024,
                  .max_patches = 0,
                  .has_vision = false};
  group.cost = cost;
  return group;
}

std::vector<const RequestState*> Waiting(std::vector<const RequestState*> requests) { return requests; }

TEST(PlacementTest, EqualGroupsTakeTurns) {
  const std::vector<GroupState> groups = {Idle(), Idle()};
  std::vector<RequestState> requests;
  for (uint64_t id = 1; id <= 5; ++id) requests.push_back(Picture(id, 10));
  std::vector<const RequestState*> waiting;
  for (const RequestState& request : requests) waiting.push_back(&request);
  EXPECT_THAT(PlaceWaiting(waiting, groups, kStart, kPatience),
              ElementsAre(Placement{1, 0}, Placement{2, 1}, Placement{3, 0}, Placement{4, 1}));
  EXPECT_THAT(PlaceWaiting({}, groups, kStart, kPatience), IsEmpty());
  EXPECT_THAT(PlaceWaiting(waiting, {}, kStart, kPatience), IsEmpty());
}

TEST(PlacementTest, ALongRequestOnAGroupWeighsMoreThanAShortOne) {
  RequestState lengthy = Picture(1, 100);
  RequestState brief = Picture(2, 3);
  std::vector<GroupState> groups = {Idle(), Idle()};
  groups[0].running = {&lengthy};
  groups[1].running = {&brief};
  const RequestState next = Picture(3, 50);
  EXPECT_THAT(PlaceWaiting(Waiting({&next}), groups, kStart, kPatience), ElementsAre(Placement{3, 1}));
}

TEST(PlacementTest, MeasuredTimesDecide) {
  const IterationCost fast{0.001, 1e-5};
  const IterationCost slow{0.01, 1e-3};
  // Ten times 505 rows: .06 s against 5.15 s.
  std::vector<GroupState> groups = {Idle(slow), Idle(fast)};
  std::vector<RequestState> requests = {Picture(1, 10), Picture(2, 10), Picture(3, 10)};
  // The third waits for a place on the fast one, which is there before the slow one would be done.
  EXPECT_THAT(PlaceWaiting(Waiting({&requests[0], &requests[1], &requests[2]}), groups, kStart, kPatience),
              ElementsAre(Placement{1, 1}, Placement{2, 1}));
  // Where the slow one is not that slow, it is used.
  groups[0].cost = IterationCost{0.001, 1.4e-5};
  EXPECT_THAT(PlaceWaiting(Waiting({&requests[0], &requests[1], &requests[2]}), groups, kStart, kPatience),
              testing::SizeIs(3));
  // A group that nobody measured is taken for an average one.
  groups[0].cost.reset();
  EXPECT_THAT(PlaceWaiting(Waiting({&requests[0]}), groups, kStart, kPatience), testing::SizeIs(1));
}

TEST(PlacementTest, WhatIsBoundGoesToItsKindAndWhatLeavesTakesNothing) {
  std::vector<GroupState> groups = {Idle(), Idle()};
  groups[0].numerics = "2 x cpu";
  groups[1].numerics = "2 x cuda";
  RequestState bound = Picture(1, 10);
  bound.numerics = "2 x cuda";
  EXPECT_THAT(PlaceWaiting(Waiting({&bound}), groups, kStart, kPatience), ElementsAre(Placement{1, 1}));
  bound.numerics = "1 x cuda";
  EXPECT_THAT(PlaceWaiting(Waiting({&bound}), groups, kStart, kPatience), IsEmpty());
  const RequestState free = Picture(2, 10);
  groups[0].leaving = true;
  EXPECT_THAT(PlaceWaiting(Waiting({&free}), groups, kStart, kPatience), ElementsAre(Placement{2, 1}));
}

TEST(PlacementTest, WhatIsLateOrCanNeverRunGetsNoPlace) {
  RequestState late = Picture(1, 3);
  late.deadline = kStart;
  RequestState large = Picture(2, 3);
  large.shape.num_latents = 2000;
  const RequestState good = Picture(3, 3);
  const std::vector<GroupState> groups = {Idle()};
  EXPECT_THAT(PlaceWaiting(Waiting({&late, &large, &good}), groups, kStart, kPatience),
              ElementsAre(Placement{3, 0}));
}

TEST(PlacementTest, WhatHasNoRoomIsOvertakenForAWhileUnlessItWasLost) {
  std::vector<GroupState> groups = {Idle()};
  RequestState running = Picture(1, 10);
  running.shape.cache_tokens = 600;
  groups[0].running = {&running};
  RequestState large = Picture(2, 10);
  large.shape.cache_tokens = 500;
  const RequestState small = Picture(3, 10);
  EXPECT_THAT(PlaceWaiting(Waiting({&large, &small}), groups, kStart, kPatience),
              ElementsAre(Placement{3, 0}));
  EXPECT_THAT(PlaceWaiting(Waiting({&large, &small}), groups, kStart + kPatience, kPatience), IsEmpty());
  large.resumed = true;
  EXPECT_THAT(PlaceWaiting(Waiting({&large, &small}), groups, kStart, kPatience), IsEmpty());
}

TEST(PlacementTest, SuspectsAreTriedOneAtATime) {
  const std::vector<GroupState> groups = {Idle(), Idle()};
  std::vector<RequestState> requests;
  for (uint64_t id = 1; id <= 4; ++id) {
    RequestState& request = requests.emplace_back(Picture(id, 10));
    if (id > 3) continue;
    request.issued = 3;
    request.Restart(request.shape, 0, /*blamed=*/true);
    EXPECT_TRUE(request.suspect());
  }
  std::vector<const RequestState*> waiting;
  for (const RequestState& request : requests) waiting.push_back(&request);
  // One on each group; the third keeps nobody from starting.
  EXPECT_THAT(PlaceWaiting(waiting, groups, kStart, kPatience),
              ElementsAre(Placement{1, 0}, Placement{2, 1}, Placement{4, 0}));
}

TEST(RestartTest, SuspicionEndsBehindThePieceThatWasUnderWay) {
  RequestState request = Picture(1, 10);
  request.issued = 1 + 8;
  // From the snapshot of step 5: three steps were under way or done behind it.
  request.Restart(request.shape, 5, /*blamed=*/true);
  EXPECT_EQ(request.first_step, 5);
  EXPECT_EQ(request.steps_done, 5);
  EXPECT_EQ(request.pieces_left(), 1 + 5 + 1);
  EXPECT_EQ(request.NextWork().kind, WorkKind::kPrefill);
  int pieces = 0;
  while (request.suspect()) {
    const Work work = request.NextWork();
    request.Issue(work);
    request.Complete(work);
    ++pieces;
  }
  EXPECT_EQ(pieces, 1 + 3);
  EXPECT_EQ(request.steps_done, 8);
  EXPECT_EQ(request.NextWork().index, 8);
  // A second time, from step 7, not blamed.
  request.Restart(request.shape, 2, /*blamed=*/false);
  EXPECT_FALSE(request.suspect());
  EXPECT_EQ(request.first_step, 7);
  EXPECT_EQ(request.rows_left(), 40 + 3 * 500);
}

TEST(IterationCostTest, FindsTheLineAndNeverGoesBelowZero) {
  IterationCostMeter meter;
  EXPECT_FALSE(meter.cost().has_value());
  meter.Add(100, absl::Seconds(1));
  EXPECT_NEAR(meter.cost()->Seconds(1, 100), 1, 1e-9);
  for (int i = 0; i < 200; ++i) {
    const int64_t rows = i % 2 == 0 ? 1 : 500;
    meter.Add(rows, absl::Milliseconds(30) + rows * absl::Milliseconds(2));
  }
  EXPECT_NEAR(meter.cost()->base_seconds, 0.03, 1e-4);
  EXPECT_NEAR(meter.cost()->row_seconds, 0.002, 1e-6);
  for (int i = 0; i < 200; ++i) meter.Add(i % 2 == 0 ? 1 : 500, absl::Milliseconds(i % 2 == 0 ? 500 : 1));
  EXPECT_GE(meter.cost()->row_seconds, 0);
  EXPECT_GE(meter.cost()->base_seconds, 0);
}

}  // namespace
}  // namespace lancet
