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

#include "tests/worker/engine/engine_testing.h"

namespace lancet {
namespace {

using ::testing::HasSubstr;

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

std::vector<Work> WithPreviews(std::vector<Work> work, PreviewMethod method) {
  for (Work& item : work) {
    if (item.kind == WorkKind::kDenoise) item.preview = method;
  }
  return work;
}

TEST_P(EngineTest, PreviewsComeWithTheirStepAndChangeNothing) {
  Group group(*checkpoint_, GetParam());
  group.Attach();
  const RequestPlan plan = MakePlan(1, 7);
  const RgbImage expected = Draw(group, plan);
  const std::vector<WorkResult> latent =
      group.Run({plan}, {WithPreviews(AllWork(plan), PreviewMethod::kLatentRgb)});
  const std::vector<WorkResult> vae = group.Run({plan}, {WithPreviews(AllWork(plan), PreviewMethod::kVae)});
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
      {"target: has no latents", [](RequestPlan& p) { p.target.latent_height = 0; }},
      {"target: given together", [](RequestPlan& p) { p.answer.emplace(); }},
      {"prefix[1]: needs a picture", [](RequestPlan& p) { p.prefix[1].kind = PrefixKind::kVision; }},
      {"vision_image", [](RequestPlan& p) { p.vision_image = NoisePicture(30, 28, 1); }},
      {"vision_image", [](RequestPlan& p) { p.vision_image = NoisePicture(280, 280, 1); }},
      {"condition_image", [](RequestPlan& p) { p.condition_image = NoisePicture(16, 8, 1); }},
      {"condition_image",
       [](RequestPlan& p) {
         p.condition_image = NoisePicture(16, 16, 1);
         p.condition_image->pixels.pop_back();
       }},
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
