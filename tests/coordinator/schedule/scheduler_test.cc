#include "coordinator/schedule/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <vector>

#include "coordinator/schedule/queue.h"

namespace lancet {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

const absl::Time kStart = absl::FromUnixSeconds(1000);

// One group, a queue and a clock that moves by `iteration` with every piece of work.
class Simulation {
 public:
  explicit Simulation(int places) : queue_(1000, absl::Seconds(30)) {
    group_.max_running = places;
    group_.max_latents = 4096;
  }

  RequestState* Add(uint64_t id, Priority priority, int steps) {
    auto state = std::make_unique<RequestState>();
    state->id = id;
    state->priority = priority;
    state->arrival = now;
    state->num_prefix_blocks = 2;
    state->num_steps = steps;
    state->num_latents = 256;
    EXPECT_TRUE(queue_.Push(state.get()).ok());
    return (requests_[id] = std::move(state)).get();
  }

  // One iteration; the id that was served, 0 if there was nothing to do.
  uint64_t Step() {
    for (const uint64_t id : PickToStart(queue_.InOrder(now), group_, now)) {
      queue_.Remove(id);
      requests_[id]->turn = ++last_turn_;
      group_.running.push_back(requests_[id].get());
      started.push_back(id);
    }
    const std::optional<Work> work = PickWork(group_);
    if (!work.has_value()) return 0;
    done.push_back(*work);
    RequestState& request = *requests_[work->request_id];
    group_.last_turn = request.turn;
    ++request.issued;
    now += iteration;
    if (request.issued == request.total_work()) {
      Remove(request.id);
      finished.push_back(request.id);
    }
    return work->request_id;
  }

  void Remove(uint64_t id) {
    queue_.Remove(id);
    std::erase_if(group_.running, [id](const RequestState* r) { return r->id == id; });
  }

  absl::Time now = kStart;
  absl::Duration iteration = absl::Seconds(1);
  std::vector<uint64_t> started;
  std::vector<uint64_t> finished;
  std::vector<Work> done;

 private:
  RequestQueue queue_;
  GroupState group_;
  uint64_t last_turn_ = 0;
  std::map<uint64_t, std::unique_ptr<RequestState>> requests_;
};

TEST(SchedulerTest, ARequestIsPrefilledDenoisedAndDecodedInThisOrder) {
  Simulation sim(4);
  RequestState* request = sim.Add(1, Priority::kNormal, 4);
  request->preview_every = 2;
  request->preview_method = PreviewMethod::kVae;
  while (sim.Step() != 0) {
  }
  ASSERT_EQ(sim.done.size(), 7u);
  const std::vector<WorkKind> kinds = {WorkKind::kPrefill, WorkKind::kPrefill, WorkKind::kDenoise,
                                       WorkKind::kDenoise, WorkKind::kDenoise, WorkKind::kDenoise,
                                       WorkKind::kDecode};
  const std::vector<int> indices = {0, 1, 0, 1, 2, 3, 0};
  for (size_t i = 0; i < 7; ++i) {
    EXPECT_EQ(sim.done[i].kind, kinds[i]) << i;
    EXPECT_EQ(sim.done[i].index, indices[i]) << i;
    EXPECT_EQ(sim.done[i].preview, i == 3 || i == 5 ? PreviewMethod::kVae : PreviewMethod::kNone) << i;
  }
  EXPECT_EQ(request->steps_done(), 0);  // nothing was reported done
}

TEST(SchedulerTest, RunningRequestsTakeTurnsStepByStep) {
  Simulation sim(3);
  for (uint64_t id : {1, 2, 3}) sim.Add(id, Priority::kNormal, 10);
  std::vector<uint64_t> served;
  for (int i = 0; i < 9; ++i) served.push_back(sim.Step());
  EXPECT_THAT(served, ElementsAre(1, 2, 3, 1, 2, 3, 1, 2, 3));
}

TEST(SchedulerTest, AJoiningRequestDoesNotDisturbTheRound) {
  Simulation sim(3);
  sim.Add(1, Priority::kNormal, 10);
  sim.Add(2, Priority::kNormal, 10);
  sim.Step();
  sim.Add(3, Priority::kNormal, 10);
  std::vector<uint64_t> served;
  for (int i = 0; i < 5; ++i) served.push_back(sim.Step());
  EXPECT_THAT(served, ElementsAre(2, 3, 1, 2, 3));
}

TEST(SchedulerTest, ACancelledRequestLeavesAtTheNextIteration) {
  Simulation sim(2);
  sim.Add(1, Priority::kNormal, 10);
  sim.Add(2, Priority::kNormal, 10);
  sim.Add(3, Priority::kNormal, 10);
  sim.Step();
  sim.Step();
  sim.Remove(1);
  EXPECT_EQ(sim.Step(), 3u);  // the free place is filled at once
  EXPECT_EQ(sim.Step(), 2u);
  EXPECT_THAT(sim.started, ElementsAre(1, 2, 3));
}

TEST(SchedulerTest, PlacesAreBoundedAndGoByTheQueuesOrder) {
  Simulation sim(2);
  sim.Add(1, Priority::kLow, 3);
  sim.Add(2, Priority::kNormal, 3);
  sim.Add(3, Priority::kHigh, 3);
  sim.Step();
  EXPECT_THAT(sim.started, ElementsAre(3, 2));
  while (sim.Step() != 0) {
  }
  EXPECT_THAT(sim.started, ElementsAre(3, 2, 1));
  EXPECT_EQ(sim.finished.size(), 3u);
}

TEST(SchedulerTest, LowNeverStarvesUnderAStreamOfHigh) {
  Simulation sim(1);
  sim.Add(1, Priority::kLow, 5);
  uint64_t next_id = 2;
  absl::Time started = absl::InfiniteFuture();
  for (int i = 0; i < 300 && started == absl::InfiniteFuture(); ++i) {
    // More HIGH work than the group can do: a request of 8 iterations every 4.
    if (i % 4 == 0) sim.Add(next_id++, Priority::kHigh, 5);
    if (sim.Step() == 1) started = sim.now;
  }
  // Two levels behind. Once it has aged for two periods it stands with fresh HIGH ones, but behind those that
  // have aged as well; what came after it cannot overtake it for ever.
  EXPECT_LT(started - kStart, absl::Seconds(200));
}

TEST(SchedulerTest, EqualRequestsGetEqualShares) {
  Simulation sim(4);
  for (uint64_t id = 1; id <= 8; ++id) sim.Add(id, Priority::kNormal, 20);
  std::map<uint64_t, int> served;
  for (int i = 0; i < 80; ++i) ++served[sim.Step()];
  for (uint64_t id = 1; id <= 4; ++id) EXPECT_EQ(served[id], 20) << id;
  for (uint64_t id = 5; id <= 8; ++id) EXPECT_EQ(served[id], 0) << id;
}

TEST(SchedulerTest, WhatIsLateOrTooLargeGetsNoPlace) {
  RequestState late;
  late.id = 1;
  late.deadline = kStart;
  RequestState large;
  large.id = 2;
  large.num_latents = 300;
  RequestState good;
  good.id = 3;
  good.num_latents = 256;
  const GroupState group{.running = {}, .last_turn = 0, .max_running = 4, .max_latents = 256};
  const std::vector<const RequestState*> waiting = {&late, &large, &good};
  EXPECT_THAT(PickToStart(waiting, group, kStart), ElementsAre(3));
  EXPECT_THAT(PickToStart({}, group, kStart), IsEmpty());
}

TEST(SchedulerTest, NothingIsHandedOutTwice) {
  RequestState state;
  state.num_steps = 1;
  state.issued = state.total_work();
  EXPECT_FALSE(PickWork(GroupState{.running = {&state}}).has_value());
}

}  // namespace
}  // namespace lancet
