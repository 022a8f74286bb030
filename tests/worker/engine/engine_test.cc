// The engine on the nano checkpoint: its contract, and that its bytes depend on the request alone. How near
// its numbers are to the model's is lancet-golden's business.

#include "worker/engine/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "worker/collective/local_collective.h"
#include "worker/collective/shm_collective.h"

namespace lancet {
namespace {

using ::testing::HasSubstr;

std::unique_ptr<Checkpoint> OpenNano() {
  CheckpointPaths overrides;
  overrides.model_dir = LANCET_TEST_DATA "/nano";
  const auto paths = ResolveCheckpoint(overrides);
  EXPECT_TRUE(paths.ok()) << paths.status();
  auto checkpoint = Checkpoint::Open(*paths);
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
  return *std::move(checkpoint);
}

Positions Line(int32_t first, int64_t count) {
  Positions positions;
  for (int64_t i = 0; i < count; ++i) {
    for (auto* axis : {&positions.t, &positions.h, &positions.w})
      axis->push_back(first + static_cast<int32_t>(i));
  }
  return positions;
}

RequestPlan MakePlan(uint64_t id, uint64_t seed, int32_t height = 2, int32_t width = 3) {
  RequestPlan plan;
  plan.request_id = id;
  plan.seed = seed;
  plan.prefix.push_back({{301, 5, 6, 7}, Line(0, 4), true, true});
  plan.prefix.push_back({{8, 9, 10}, Line(4, 3), true, false});
  plan.prefix.push_back({{302, 198}, Line(7, 2), true, true});
  plan.target.latent_height = height;
  plan.target.latent_width = width;
  plan.target.start_token_id = 309;
  plan.target.end_token_id = 310;
  plan.target.conditional = Line(9, plan.target.num_latents() + 2);
  plan.target.unconditional = Line(6, plan.target.num_latents() + 2);
  plan.sampler.num_steps = 3;
  return plan;
}

std::vector<Work> AllWork(const RequestPlan& plan, PreviewMethod preview = PreviewMethod::kNone) {
  std::vector<Work> work;
  for (size_t i = 0; i < plan.prefix.size(); ++i) {
    work.push_back({plan.request_id, WorkKind::kPrefill, static_cast<int32_t>(i), PreviewMethod::kNone});
  }
  for (int32_t step = 0; step < plan.sampler.num_steps; ++step) {
    work.push_back({plan.request_id, WorkKind::kDenoise, step, preview});
  }
  work.push_back({plan.request_id, WorkKind::kDecode, 0, PreviewMethod::kNone});
  return work;
}

// Ranks as threads, every rank doing the same.
class Group {
 public:
  Group(const Checkpoint& checkpoint, int world_size, int threads = 1) {
    for (int rank = 0; rank < world_size; ++rank) {
      EngineOptions options;
      options.rank = rank;
      options.world_size = world_size;
      options.threads = threads;
      options.max_latents = 64;
      auto engine = Engine::Load(checkpoint, options);
      EXPECT_TRUE(engine.ok()) << engine.status();
      engines_.push_back(*std::move(engine));
    }
    const size_t capacity = engines_[0]->collective_capacity();
    if (world_size == 1) {
      collectives_.push_back(*SingleRankCollective::Create(capacity));
    } else {
      auto group = ShmCollective::CreateGroupInProcess(world_size, capacity);
      EXPECT_TRUE(group.ok()) << group.status();
      for (auto& collective : *group) collectives_.push_back(std::move(collective));
    }
  }

  void OnEveryRank(const std::function<void(int rank, Engine& engine)>& fn) {
    std::vector<std::thread> threads;
    for (size_t rank = 0; rank < engines_.size(); ++rank) {
      threads.emplace_back([&, rank] { fn(static_cast<int>(rank), *engines_[rank]); });
    }
    for (std::thread& thread : threads) thread.join();
  }

  void Attach() {
    OnEveryRank([&](int rank, Engine& engine) { EXPECT_TRUE(engine.Attach(collectives_[rank].get()).ok()); });
  }

  // Executes the batches of work one Iterate each, after admitting the plans; rank 0's results.
  std::vector<WorkResult> Run(const std::vector<RequestPlan>& plans,
                              const std::vector<std::vector<Work>>& batches) {
    std::vector<WorkResult> all;
    OnEveryRank([&](int rank, Engine& engine) {
      for (const RequestPlan& plan : plans) EXPECT_TRUE(engine.Admit(plan).ok());
      for (const std::vector<Work>& batch : batches) {
        auto results = engine.Iterate(batch);
        ASSERT_TRUE(results.ok()) << results.status();
        if (rank == 0) {
          for (WorkResult& result : *results) all.push_back(std::move(result));
        }
      }
      for (const RequestPlan& plan : plans) EXPECT_TRUE(engine.Release(plan.request_id).ok());
    });
    return all;
  }

  Engine& engine(int rank) { return *engines_[rank]; }

 private:
  std::vector<std::unique_ptr<Engine>> engines_;
  std::vector<std::unique_ptr<Collective>> collectives_;
};

RgbImage Draw(Group& group, const RequestPlan& plan) {
  const std::vector<WorkResult> results = group.Run({plan}, {AllWork(plan)});
  EXPECT_TRUE(results.back().image.has_value());
  return results.back().image.value_or(RgbImage{});
}

class EngineTest : public ::testing::TestWithParam<int> {
 protected:
  static void SetUpTestSuite() { checkpoint_ = OpenNano().release(); }
  static void TearDownTestSuite() {
    delete checkpoint_;
    checkpoint_ = nullptr;
  }
  static Checkpoint* checkpoint_;
};
Checkpoint* EngineTest::checkpoint_ = nullptr;

TEST_P(EngineTest, TheSameRequestGivesTheSameBytes) {
  Group group(*checkpoint_, GetParam());
  group.Attach();
  const RgbImage first = Draw(group, MakePlan(1, 7));
  EXPECT_EQ(first.width, 48);
  EXPECT_EQ(first.height, 32);
  EXPECT_EQ(first.pixels.size(), 48u * 32 * 3);
  EXPECT_EQ(Draw(group, MakePlan(2, 7)), first);
  EXPECT_NE(Draw(group, MakePlan(3, 8)), first);
  Group fresh(*checkpoint_, GetParam(), /*threads=*/2);
  fresh.Attach();
  EXPECT_EQ(Draw(fresh, MakePlan(1, 7)), first);
}

TEST_P(EngineTest, RequestsThatTakeTurnsDoNotTouchEachOther) {
  Group group(*checkpoint_, GetParam());
  group.Attach();
  const RequestPlan a = MakePlan(1, 7);
  const RequestPlan b = MakePlan(2, 8, 4, 2);
  const RgbImage alone_a = Draw(group, a);
  const RgbImage alone_b = Draw(group, b);
  const std::vector<Work> work_a = AllWork(a);
  const std::vector<Work> work_b = AllWork(b);
  std::vector<std::vector<Work>> turns;
  for (size_t i = 0; i < work_a.size(); ++i) turns.push_back({work_a[i], work_b[i]});
  const std::vector<WorkResult> results = group.Run({a, b}, turns);
  EXPECT_EQ(results[results.size() - 2].image, alone_a);
  EXPECT_EQ(results[results.size() - 1].image, alone_b);
}

TEST_P(EngineTest, PreviewsComeWithTheirStepAndChangeNothing) {
  Group group(*checkpoint_, GetParam());
  group.Attach();
  const RequestPlan plan = MakePlan(1, 7);
  const RgbImage expected = Draw(group, plan);
  const std::vector<WorkResult> latent = group.Run({plan}, {AllWork(plan, PreviewMethod::kLatentRgb)});
  const std::vector<WorkResult> vae = group.Run({plan}, {AllWork(plan, PreviewMethod::kVae)});
  ASSERT_TRUE(latent[3].preview.has_value());
  EXPECT_EQ(latent[3].preview->width, 3);
  EXPECT_EQ(latent[3].preview->height, 2);
  ASSERT_TRUE(vae[5].preview.has_value());
  // After the last step the estimate is the result.
  EXPECT_EQ(*vae[5].preview, expected);
  EXPECT_EQ(latent.back().image, expected);
  EXPECT_EQ(vae.back().image, expected);
}

TEST_P(EngineTest, WithoutGuidanceNothingUnconditionalMatters) {
  Group group(*checkpoint_, GetParam());
  group.Attach();
  RequestPlan plan = MakePlan(1, 7);
  plan.sampler.guidance_scale = 1.0f;
  RequestPlan other = plan;
  other.target.unconditional = Line(0, plan.target.num_latents() + 2);
  EXPECT_EQ(Draw(group, plan), Draw(group, other));
}

TEST_P(EngineTest, WarmUpLeavesNothingBehind) {
  Group group(*checkpoint_, GetParam());
  group.Attach();
  group.OnEveryRank([](int /*rank*/, Engine& engine) { EXPECT_TRUE(engine.WarmUp().ok()); });
  EXPECT_EQ(group.engine(0).Release(0).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Draw(group, MakePlan(0, 7)), Draw(group, MakePlan(1, 7)));
}

TEST_P(EngineTest, AttachDropsEveryRequest) {
  Group group(*checkpoint_, GetParam());
  group.Attach();
  group.OnEveryRank([](int /*rank*/, Engine& engine) { EXPECT_TRUE(engine.Admit(MakePlan(1, 7)).ok()); });
  group.Attach();
  EXPECT_EQ(group.engine(0).Release(1).code(), absl::StatusCode::kNotFound);
}

INSTANTIATE_TEST_SUITE_P(Ranks, EngineTest, ::testing::Values(1, 2, 3, 4));

class EngineContractTest : public ::testing::Test {
 protected:
  EngineContractTest() : checkpoint_(OpenNano()), group_(*checkpoint_, 1) { group_.Attach(); }
  absl::Status Admit(const RequestPlan& plan) { return group_.engine(0).Admit(plan); }
  absl::Status Iterate(const Work& work) { return group_.engine(0).Iterate({work}).status(); }

  std::unique_ptr<Checkpoint> checkpoint_;
  Group group_;
};

TEST_F(EngineContractTest, RefusesBadPlansByField) {
  struct Case {
    const char* what;
    std::function<void(RequestPlan&)> spoil;
  };
  const Case cases[] = {
      {"target", [](RequestPlan& p) { p.target.latent_height = 0; }},
      {"at most 64", [](RequestPlan& p) { p.target.latent_height = 1000; }},
      {"target.start_token_id: token id 336", [](RequestPlan& p) { p.target.start_token_id = 336; }},
      {"target.conditional", [](RequestPlan& p) { p.target.conditional.h.pop_back(); }},
      {"target.unconditional", [](RequestPlan& p) { p.target.unconditional.t[0] = -1; }},
      {"prefix[1]", [](RequestPlan& p) { p.prefix[1].token_ids[0] = -5; }},
      {"prefix[0]", [](RequestPlan& p) { p.prefix[0].token_ids.clear(); }},
      {"prefix[2]", [](RequestPlan& p) { p.prefix[2].conditional = p.prefix[2].unconditional = false; }},
      {"sampler.num_steps: 0", [](RequestPlan& p) { p.sampler.num_steps = 0; }},
      {"sampler.timestep_shift", [](RequestPlan& p) { p.sampler.timestep_shift = -1; }},
      {"sampler.guidance",
       [](RequestPlan& p) { p.sampler.guidance_end = std::numeric_limits<float>::quiet_NaN(); }},
  };
  for (const Case& item : cases) {
    RequestPlan plan = MakePlan(1, 7);
    item.spoil(plan);
    const absl::Status status = Admit(plan);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << item.what;
    EXPECT_THAT(std::string(status.message()), HasSubstr(item.what));
    EXPECT_EQ(group_.engine(0).Release(1).code(), absl::StatusCode::kNotFound);
  }
}

TEST_F(EngineContractTest, WorkMustComeInOrder) {
  EXPECT_EQ(Iterate({9, WorkKind::kPrefill, 0, PreviewMethod::kNone}).code(),
            absl::StatusCode::kInvalidArgument);
  ASSERT_TRUE(Admit(MakePlan(1, 7)).ok());
  EXPECT_EQ(Admit(MakePlan(1, 7)).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(Iterate({1, WorkKind::kPrefill, 1, PreviewMethod::kNone}).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Iterate({1, WorkKind::kDenoise, 0, PreviewMethod::kNone}).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Iterate({1, WorkKind::kDecode, 0, PreviewMethod::kNone}).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(Iterate({1, WorkKind::kPrefill, 0, PreviewMethod::kNone}).ok());
  EXPECT_EQ(Iterate({1, WorkKind::kPrefill, 0, PreviewMethod::kNone}).code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(EngineContractTest, HoldsNoMoreRequestsThanItsLimit) {
  const int limit = EngineOptions{}.max_requests;
  for (int i = 0; i < limit; ++i) ASSERT_TRUE(Admit(MakePlan(i, 7)).ok());
  EXPECT_EQ(Admit(MakePlan(limit, 7)).code(), absl::StatusCode::kResourceExhausted);
  ASSERT_TRUE(group_.engine(0).Release(0).ok());
  EXPECT_TRUE(Admit(MakePlan(limit, 7)).ok());
}

TEST(EngineAbortTest, AFailedCollectiveEndsTheIterationAndTheNextEpochWorks) {
  const auto checkpoint = OpenNano();
  EngineOptions options;
  options.world_size = 2;
  options.max_latents = 64;
  auto engine = *Engine::Load(*checkpoint, options);
  auto group = *ShmCollective::CreateGroupInProcess(2, engine->collective_capacity());
  ASSERT_TRUE(engine->Attach(group[0].get()).ok());
  ASSERT_TRUE(engine->Admit(MakePlan(1, 7)).ok());
  // The peer never comes; somebody says so while this rank waits.
  std::thread aborter([&] { group[0]->Abort(absl::UnavailableError("rank 1 died")); });
  const auto result = engine->Iterate({{1, WorkKind::kPrefill, 0, PreviewMethod::kNone}});
  aborter.join();
  EXPECT_EQ(result.status().code(), absl::StatusCode::kUnavailable);
  auto next = *ShmCollective::CreateGroupInProcess(2, engine->collective_capacity());
  EXPECT_TRUE(engine->Attach(next[0].get()).ok());
}

}  // namespace
}  // namespace lancet
