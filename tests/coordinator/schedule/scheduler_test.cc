#include "coordinator/schedule/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "coordinator/schedule/placement.h"
#include "coordinator/schedule/queue.h"

namespace lancet {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

const absl::Time kStart = absl::FromUnixSeconds(1000);
constexpr absl::Duration kAgeing = absl::Seconds(30);

GroupLimits RoomyLimits() {
  return {.max_requests = 8,
          .max_rows = 2000,
          .cache_tokens = 100000,
          .max_latents = 4096,
          .max_patches = 4096,
          .has_vision = true};
}

// Text blocks of 40 and 5 rows, then steps of `step_rows`.
RequestShape Picture(int steps, int64_t step_rows = 500) {
  RequestShape shape;
  shape.blocks = {{40, 1, true}, {5, 2, true}};
  shape.num_steps = steps;
  shape.step_rows = step_rows;
  shape.num_latents = 256;
  shape.cache_tokens = 50;
  return shape;
}

RequestShape Answer(int tokens) {
  RequestShape shape;
  shape.encodes_vision = true;
  shape.num_patches = 64;
  shape.blocks = {{20, 1, true}, {66, 1, false}, {9, 1, true}};
  shape.max_new_tokens = tokens;
  shape.cache_tokens = 95 + tokens;
  return shape;
}

// One group, a queue and a clock that moves by `pace` with every iteration.
class Simulation {
 public:
  explicit Simulation(GroupLimits limits) : queue_(100000, kAgeing) { group_.limits = limits; }

  RequestState* Add(uint64_t id, Priority priority, RequestShape shape) {
    auto state = std::make_unique<RequestState>();
    state->id = id;
    state->priority = priority;
    state->arrival = now;
    state->shape = std::move(shape);
    EXPECT_TRUE(queue_.Push(state.get()).ok());
    return (requests_[id] = std::move(state)).get();
  }

  // One iteration; checks what must hold of every one. Empty if there was nothing to do.
  std::vector<Work> Step() {
    for (const auto& [id, group] : PlaceWaiting(queue_.InOrder(now), {&group_, 1}, now, kAgeing)) {
      EXPECT_EQ(group, 0u);
      queue_.Remove(id);
      group_.running.push_back(requests_[id].get());
      started.push_back(id);
    }
    int64_t tokens = 0;
    for (const RequestState* request : group_.running) tokens += request->shape.cache_tokens;
    EXPECT_LE(tokens, group_.limits.cache_tokens);
    EXPECT_LE(static_cast<int32_t>(group_.running.size()), group_.limits.max_requests);

    Iteration iteration = PickIteration(group_, now, kAgeing);
    Check(iteration);
    group_.tokens_left_out = iteration.tokens_left_out;
    now += pace;
    for (const Work& work : iteration.work) {
      RequestState& request = *requests_[work.request_id];
      request.Issue(work);
      request.Complete(work);
      if (request.all_issued()) {
        EXPECT_EQ(request.pieces_left(), 0);
        Remove(request.id);
        finished.push_back(request.id);
      }
    }
    return iteration.work;
  }

  std::vector<uint64_t> ServedIds() {
    std::vector<uint64_t> ids;
    for (const Work& work : Step()) ids.push_back(work.request_id);
    return ids;
  }

  void Remove(uint64_t id) {
    queue_.Remove(id);
    std::erase_if(group_.running, [id](const RequestState* r) { return r->id == id; });
    waited_.erase(id);
  }

  bool done() const { return group_.running.empty() && queue_.size() == 0; }

  absl::Time now = kStart;
  absl::Duration pace = absl::Seconds(1);
  std::vector<uint64_t> started;
  std::vector<uint64_t> finished;

 private:
  void Check(const Iteration& iteration) {
    std::set<uint64_t> served;
    int64_t rows = 0;
    int heavy = 0;
    for (const Work& work : iteration.work) {
      EXPECT_TRUE(served.insert(work.request_id).second) << "two pieces of one request";
      const RequestState& request = *requests_[work.request_id];
      const Work next = request.NextWork();
      EXPECT_EQ(work.kind, next.kind);
      EXPECT_EQ(work.index, next.index);
      switch (work.kind) {
        case WorkKind::kPrefill: {
          const RequestShape::Block& block = request.shape.blocks[work.index];
          const int64_t count = work.count > 0 ? work.count : block.rows - work.begin;
          EXPECT_LE(work.begin + count, block.rows);
          if (!block.divisible) {
            EXPECT_EQ(count, block.rows);
          }
          rows += count * block.caches;
          break;
        }
        case WorkKind::kDenoise:
          rows += request.shape.step_rows;
          heavy += work.preview == PreviewMethod::kVae ? 1 : 0;
          break;
        case WorkKind::kAnswer:
          rows += 1;
          break;
        default:
          ++heavy;
      }
    }
    EXPECT_LE(rows, group_.limits.max_rows);
    EXPECT_LE(heavy, 1);
    bool left_out = false;
    for (const RequestState* request : group_.running) {
      if (request->all_issued() || request->NextWork().kind != WorkKind::kAnswer) continue;
      if (served.count(request->id) > 0) {
        waited_[request->id] = 0;
      } else {
        left_out = true;
        EXPECT_LE(++waited_[request->id], 1) << "a token waited for two iterations";
      }
    }
    EXPECT_EQ(left_out, iteration.tokens_left_out);
    if (!group_.running.empty()) {
      EXPECT_FALSE(iteration.work.empty()) << "idle with work to do";
    }
  }

  RequestQueue queue_;
  GroupState group_;
  std::map<uint64_t, std::unique_ptr<RequestState>> requests_;
  std::map<uint64_t, int> waited_;  // iterations without a token, by answer
};

TEST(SchedulerTest, APictureIsPrefilledDenoisedAndDecodedInThisOrder) {
  Simulation sim(RoomyLimits());
  RequestState* request = sim.Add(1, Priority::kNormal, Picture(4));
  request->preview_every = 2;
  request->preview_method = PreviewMethod::kVae;
  std::vector<Work> done;
  while (!sim.done()) {
    const std::vector<Work> work = sim.Step();
    ASSERT_EQ(work.size(), 1u);
    done.push_back(work[0]);
  }
  const std::vector<WorkKind> kinds = {WorkKind::kPrefill, WorkKind::kPrefill, WorkKind::kDenoise,
                                       WorkKind::kDenoise, WorkKind::kDenoise, WorkKind::kDenoise,
                                       WorkKind::kDecode};
  const std::vector<int> indices = {0, 1, 0, 1, 2, 3, 0};
  ASSERT_EQ(done.size(), 7u);
  for (size_t i = 0; i < 7; ++i) {
    EXPECT_EQ(done[i].kind, kinds[i]) << i;
    EXPECT_EQ(done[i].index, indices[i]) << i;
    EXPECT_EQ(done[i].preview, i == 3 || i == 5 ? PreviewMethod::kVae : PreviewMethod::kNone) << i;
  }
  EXPECT_EQ(request->steps_done, 4);
}

TEST(SchedulerTest, EncodersComeFirstAndAnswersLast) {
  Simulation sim(RoomyLimits());
  RequestShape shape = Answer(3);
  shape.encodes_latents = true;
  sim.Add(1, Priority::kNormal, shape);
  std::vector<std::pair<WorkKind, int>> done;
  while (!sim.done()) {
    for (const Work& work : sim.Step()) done.emplace_back(work.kind, work.index);
  }
  EXPECT_THAT(done, ElementsAre(std::pair(WorkKind::kEncodeVision, 0), std::pair(WorkKind::kEncodeLatents, 0),
                                std::pair(WorkKind::kPrefill, 0), std::pair(WorkKind::kPrefill, 1),
                                std::pair(WorkKind::kPrefill, 2), std::pair(WorkKind::kAnswer, 0),
                                std::pair(WorkKind::kAnswer, 1), std::pair(WorkKind::kAnswer, 2)));
}

TEST(SchedulerTest, RequestsThatFitShareEveryIteration) {
  Simulation sim(RoomyLimits());
  for (uint64_t id : {1, 2, 3}) sim.Add(id, Priority::kNormal, Picture(10));
  for (int i = 0; i < 12; ++i) EXPECT_THAT(sim.ServedIds(), UnorderedElementsAre(1, 2, 3)) << i;
  // The decodes are heavy, so they come one after the other.
  for (uint64_t id : {1, 2, 3}) EXPECT_THAT(sim.ServedIds(), ElementsAre(id));
}

TEST(SchedulerTest, TheBudgetGoesByPriorityThenDeadlineThenArrival) {
  GroupLimits limits = RoomyLimits();
  limits.max_rows = 1000;  // two steps
  Simulation sim(limits);
  sim.Add(1, Priority::kLow, Picture(5));
  sim.now += absl::Milliseconds(1);
  sim.Add(2, Priority::kNormal, Picture(5));
  sim.now += absl::Milliseconds(1);
  sim.Add(3, Priority::kNormal, Picture(5));
  sim.now += absl::Milliseconds(1);
  sim.Add(4, Priority::kNormal, Picture(5))->deadline = kStart + absl::Seconds(100);
  sim.now += absl::Milliseconds(1);
  sim.Add(5, Priority::kHigh, Picture(5));
  while (!sim.done()) sim.Step();
  EXPECT_THAT(sim.started, ElementsAre(5, 4, 2, 3, 1));
  EXPECT_THAT(sim.finished, ElementsAre(5, 4, 2, 3, 1));
}

TEST(SchedulerTest, ACancelledRequestLeavesAtTheNextIterationAndItsPlaceIsFilled) {
  GroupLimits limits = RoomyLimits();
  limits.max_requests = 2;
  Simulation sim(limits);
  for (uint64_t id : {1, 2, 3}) sim.Add(id, Priority::kNormal, Picture(10));
  sim.Step();
  sim.Remove(1);
  EXPECT_THAT(sim.ServedIds(), UnorderedElementsAre(2, 3));
  EXPECT_THAT(sim.started, ElementsAre(1, 2, 3));
}

TEST(SchedulerTest, LowNeverStarvesUnderAStreamOfHigh) {
  for (const int places : {1, 4}) {
    GroupLimits limits = RoomyLimits();
    limits.max_requests = places;
    limits.max_rows = 500;  // one step
    Simulation sim(limits);
    sim.Add(1, Priority::kLow, Picture(5));
    uint64_t next_id = 2;
    for (int i = 0; i < 300 && sim.finished != std::vector<uint64_t>{1}; ++i) {
      // More HIGH work than the group can do: a request of 8 iterations every 4.
      if (i % 4 == 0) sim.Add(next_id++, Priority::kHigh, Picture(5));
      sim.Step();
      if (std::count(sim.finished.begin(), sim.finished.end(), 1u) > 0) break;
    }
    // Two levels behind. Once it has aged for two periods it stands with fresh HIGH ones, but behind those
    // that have aged as well; what came after it cannot overtake it for ever.
    EXPECT_THAT(sim.finished, testing::Contains(1u)) << places;
    EXPECT_LT(sim.now - kStart, absl::Seconds(250));
  }
}

TEST(SchedulerTest, TextIsCutToWhatIsLeftAndVisualBlocksAreNot) {
  GroupLimits limits = RoomyLimits();
  limits.max_rows = 510;
  Simulation sim(limits);
  sim.Add(1, Priority::kHigh, Picture(3));
  for (int i = 0; i < 2; ++i) sim.Step();  // its prefix
  RequestShape shape = Answer(2);
  shape.encodes_vision = false;
  shape.blocks = {{25, 1, true}, {66, 1, false}, {9, 2, true}};
  sim.Add(2, Priority::kNormal, shape);
  std::vector<std::vector<int>> parts;  // index, begin, count
  while (!sim.done()) {
    for (const Work& work : sim.Step()) {
      if (work.request_id == 2 && work.kind == WorkKind::kPrefill)
        parts.push_back({work.index, work.begin, work.count});
    }
  }
  // Ten rows beside each of the three steps, the rest with the decode; the last block is cached twice.
  EXPECT_THAT(parts, ElementsAre(ElementsAre(0, 0, 10), ElementsAre(0, 10, 10), ElementsAre(0, 20, 5),
                                 ElementsAre(1, 0, 0), ElementsAre(2, 0, 0)));
}

TEST(SchedulerTest, TokensAreInEveryIterationBesidePictures) {
  GroupLimits limits = RoomyLimits();
  limits.max_rows = 1100;
  Simulation sim(limits);
  for (uint64_t id : {1, 2, 3}) sim.Add(id, Priority::kHigh, Picture(40));
  for (uint64_t id : {4, 5}) sim.Add(id, Priority::kLow, Answer(30));
  int tokens = 0;
  while (!sim.done()) {
    std::vector<Work> work = sim.Step();
    const auto of_answers =
        std::count_if(work.begin(), work.end(), [](const Work& w) { return w.kind == WorkKind::kAnswer; });
    tokens += static_cast<int>(of_answers);
  }
  EXPECT_EQ(tokens, 60);
}

TEST(SchedulerTest, AStepThatFillsThePassAlternatesWithTokens) {
  GroupLimits limits = RoomyLimits();
  limits.max_rows = 500;
  Simulation sim(limits);
  RequestShape answer = Answer(20);
  answer.encodes_vision = false;
  answer.blocks.clear();
  sim.Add(1, Priority::kNormal, Picture(5));
  sim.Add(2, Priority::kNormal, answer);
  sim.Step();
  sim.Step();
  // The simulation itself checks that no token waits for two iterations.
  for (int i = 0; i < 4; ++i) {
    EXPECT_THAT(sim.ServedIds(), ElementsAre(1)) << i;
    EXPECT_THAT(sim.ServedIds(), ElementsAre(2)) << i;
  }
  EXPECT_THAT(sim.ServedIds(), ElementsAre(1));
  EXPECT_THAT(sim.ServedIds(), ElementsAre(2, 1));  // the decode takes no rows
}

TEST(SchedulerTest, OneHeavyPieceAnIteration) {
  Simulation sim(RoomyLimits());
  for (uint64_t id = 1; id <= 6; ++id) sim.Add(id, Priority::kNormal, Answer(4));
  sim.Add(7, Priority::kNormal, Picture(2));
  for (int i = 0; i < 6; ++i) {
    const std::vector<Work> work = sim.Step();
    EXPECT_EQ(std::count_if(work.begin(), work.end(),
                            [](const Work& w) { return w.kind == WorkKind::kEncodeVision; }),
              1);
  }
}

TEST(SchedulerTest, CacheMemoryIsKeptAndNobodyIsOvertakenForEver) {
  GroupLimits limits = RoomyLimits();
  limits.cache_tokens = 200;
  Simulation sim(limits);
  RequestShape large = Picture(3);
  large.cache_tokens = 180;
  RequestShape small = Picture(10);
  small.cache_tokens = 90;
  sim.Add(1, Priority::kNormal, small);
  sim.Step();
  sim.Add(2, Priority::kNormal, large);
  uint64_t next_id = 3;
  int overtaken = 0;
  while (std::count(sim.started.begin(), sim.started.end(), 2u) == 0) {
    // There is always a small one that would fit.
    sim.Add(next_id++, Priority::kNormal, small);
    sim.Step();
    ASSERT_LT(sim.now - kStart, absl::Seconds(100));
  }
  overtaken = static_cast<int>(sim.started.size()) - 2;
  EXPECT_GE(overtaken, 2);  // what it left idle was used
  EXPECT_LE(sim.now - kStart, absl::Seconds(50));
}

TEST(SchedulerTest, WhatNeverFitsIsRefusedWithNeedAndLimit) {
  const GroupLimits limits = {.max_requests = 1,
                              .max_rows = 600,
                              .cache_tokens = 200,
                              .max_latents = 256,
                              .max_patches = 64,
                              .has_vision = true};
  EXPECT_TRUE(CheckFits(Picture(3), limits).ok());
  EXPECT_TRUE(CheckFits(Answer(105), limits).ok());
  const auto why = [&](const RequestShape& shape, const GroupLimits& of) {
    const absl::Status status = CheckFits(shape, of);
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    return std::string(status.message());
  };
  RequestShape shape = Picture(3);
  shape.num_latents = 257;
  EXPECT_EQ(why(shape, limits),
            "the picture needs 257 latents (16 x 16 pixels each), but no worker group has room for more than "
            "256");
  shape = Answer(1);
  shape.num_patches = 65;
  EXPECT_THAT(why(shape, limits), HasSubstr("65 vision patches"));
  EXPECT_THAT(why(Answer(106), limits), HasSubstr("201 tokens of cache"));
  EXPECT_THAT(why(Answer(106), limits), HasSubstr("more than 200"));
  EXPECT_THAT(why(Picture(3, 601), limits), HasSubstr("601 rows"));
  shape = Picture(3);
  shape.blocks.push_back({301, 2, false});
  EXPECT_THAT(why(shape, limits), HasSubstr("602 rows"));
  shape.blocks.back().divisible = true;
  EXPECT_TRUE(CheckFits(shape, limits).ok());
  GroupLimits blind = limits;
  blind.has_vision = false;
  EXPECT_THAT(why(Answer(1), blind), HasSubstr("no vision tower"));
}

TEST(SchedulerTest, NothingIsHandedOutTwice) {
  RequestState state;
  state.shape = Picture(1);
  state.issued = state.shape.num_pieces();
  const GroupState group{.running = {&state}, .limits = RoomyLimits(), .tokens_left_out = false};
  EXPECT_THAT(PickIteration(group, kStart, kAgeing).work, IsEmpty());
}

// Any mix of requests on any group: what Simulation checks of every iteration holds, and everything ends.
TEST(SchedulerTest, RandomMixesKeepTheRulesAndEnd) {
  std::mt19937 random(7);
  const auto pick = [&random](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  for (int run = 0; run < 200; ++run) {
    GroupLimits limits = RoomyLimits();
    limits.max_requests = pick(1, 10);
    limits.max_rows = pick(100, 1000);
    limits.cache_tokens = pick(200, 2000);
    Simulation sim(limits);
    int accepted = 0;
    for (uint64_t id = 1; id <= 30; ++id) {
      RequestShape shape = pick(0, 1) == 0 ? Picture(pick(1, 12), pick(2, 1000)) : Answer(pick(1, 60));
      shape.encodes_latents = pick(0, 3) == 0;
      for (RequestShape::Block& block : shape.blocks) block = {pick(1, 300), pick(1, 2), pick(0, 2) > 0};
      shape.cache_tokens = pick(10, 1000);
      if (!CheckFits(shape, limits).ok()) continue;
      ++accepted;
      RequestState* request = sim.Add(id, static_cast<Priority>(pick(1, 3)), shape);
      if (pick(0, 2) == 0) {
        request->preview_every = pick(1, 3);
        request->preview_method = pick(0, 1) == 0 ? PreviewMethod::kVae : PreviewMethod::kLatentRgb;
      }
      for (int i = pick(0, 20); i > 0; --i) sim.Step();
    }
    int steps = 0;
    while (!sim.done()) {
      sim.Step();
      ASSERT_LT(++steps, 20000) << "run " << run;
    }
    EXPECT_EQ(static_cast<int>(sim.finished.size()), accepted);
    if (HasFailure()) FAIL() << "run " << run;
  }
}

}  // namespace
}  // namespace lancet
