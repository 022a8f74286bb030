// Requests that go on from a snapshot, or behind the tokens they have, on another group: their bytes are
// those of the undisturbed run.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "common/plan_resume.h"
#include "tests/worker/engine/engine_testing.h"

namespace lancet {
namespace {

using ::testing::HasSubstr;

// Sanitizers take ten times as long, and look for other mistakes than the place of a break would bring.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr size_t kTokensBetween = 6;
#else
constexpr size_t kTokensBetween = 1;
#endif

class EngineResumeTest : public ::testing::TestWithParam<int> {
 protected:
  EngineResumeTest()
      : checkpoint_(OpenNano()), first_(*checkpoint_, GetParam()), second_(*checkpoint_, GetParam()) {
    first_.Attach();
    second_.Attach();
  }

  const std::unique_ptr<Checkpoint> checkpoint_;
  Group first_;
  Group second_;
};

std::vector<RequestPlan> Drawings() {
  std::vector<RequestPlan> plans = {MakePlan(1, 7), MakePlan(2, 8), MakeEditPlan(3, 9), MakeEditPlan(4, 10)};
  plans[1].sampler.solver = Solver::kDpmpp2m;
  plans[3].sampler.solver = Solver::kDpmpp2m;
  plans[3].sample_condition = true;
  for (RequestPlan& plan : plans) plan.sampler.num_steps = 5;
  return plans;
}

TEST_P(EngineResumeTest, APictureGoesOnFromEveryStep) {
  for (RequestPlan plan : Drawings()) {
    const RgbImage undisturbed = Draw(first_, plan);
    std::vector<Work> work = AllWork(plan);
    for (Work& item : work) item.snapshot = item.kind == WorkKind::kDenoise;
    std::vector<LatentSnapshot> snapshots;
    for (WorkResult& result : first_.Run({plan}, {work})) {
      EXPECT_EQ(result.snapshot.has_value(), result.kind == WorkKind::kDenoise);
      if (result.image.has_value()) {
        EXPECT_EQ(*result.image, undisturbed) << "a snapshot changed the picture";
      }
      if (result.snapshot.has_value()) snapshots.push_back(*std::move(result.snapshot));
    }
    ASSERT_EQ(snapshots.size(), 5u);
    for (size_t i = 0; i < snapshots.size(); ++i) {
      EXPECT_EQ(snapshots[i].step, static_cast<int32_t>(i) + 1);
      EXPECT_TRUE(SnapshotFits(plan, snapshots[i]));
      plan.snapshot = snapshots[i];
      EXPECT_EQ(Draw(second_, plan), undisturbed) << "request " << plan.request_id << " from step " << i + 1;
    }
    // With all steps done there is nothing to be prefilled.
    const std::vector<WorkResult> results =
        second_.Run({plan}, {{{.request_id = plan.request_id, .kind = WorkKind::kDecode}}});
    EXPECT_EQ(results[0].image, undisturbed);
  }
}

TEST_P(EngineResumeTest, AnAnswerGoesOnBehindEveryToken) {
  for (const float temperature : {0.0f, 0.8f}) {
    RequestPlan plan = MakeAnswerPlan(1, 11, temperature);
    plan.answer->max_new_tokens = 20;
    plan.answer->stop_token_id = 321;  // so that it does not end early
    std::vector<int32_t> tokens;
    for (const WorkResult& result : first_.Run({plan}, {AllWork(plan)})) {
      if (result.token.has_value()) tokens.push_back(result.token->id);
    }
    ASSERT_GE(tokens.size(), 3u);
    for (size_t count = 0; count < tokens.size(); count += kTokensBetween) {
      const RequestPlan resumed = ResumeAnswer(plan, absl::MakeConstSpan(tokens).first(count));
      std::vector<int32_t> all(tokens.begin(), tokens.begin() + static_cast<int64_t>(count));
      for (const WorkResult& result : second_.Run({resumed}, {AllWork(resumed)})) {
        if (result.token.has_value()) all.push_back(result.token->id);
      }
      EXPECT_EQ(all, tokens) << "behind " << count << " tokens, temperature " << temperature;
    }
  }
}

TEST_P(EngineResumeTest, RefusesSnapshotsThatDoNotBelong) {
  const auto refused = [&](const RequestPlan& plan) {
    std::string message;
    first_.OnEveryRank([&](int rank, Engine& engine) {
      const absl::Status status = engine.Admit(plan);
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
      if (rank == 0) message = std::string(status.message());
    });
    return message;
  };
  RequestPlan plan = MakePlan(1, 7);
  const size_t values = 6 * 48;
  plan.snapshot = LatentSnapshot{.step = 4, .latents = std::vector<bf16>(values), .previous_clean = {}};
  EXPECT_THAT(refused(plan), HasSubstr("snapshot.step: 4 is outside 1 to 3"));
  plan.snapshot->step = 0;
  EXPECT_THAT(refused(plan), HasSubstr("snapshot.step: 0"));
  plan.snapshot->step = 2;
  plan.snapshot->latents.pop_back();
  EXPECT_THAT(refused(plan), HasSubstr("snapshot.latents: 287 values; expected 288"));
  plan.snapshot->latents.resize(values);
  plan.snapshot->previous_clean.resize(values);
  EXPECT_THAT(refused(plan), HasSubstr("snapshot.previous_clean: 288 values; expected 0"));
  plan.sampler.solver = Solver::kDpmpp2m;
  plan.snapshot->previous_clean.clear();
  EXPECT_THAT(refused(plan), HasSubstr("snapshot.previous_clean: 0 values; expected 288"));
  RequestPlan answer = MakeAnswerPlan(2, 8);
  answer.snapshot = plan.snapshot;
  EXPECT_THAT(refused(answer), HasSubstr("snapshot"));
  RequestPlan marked = MakePlan(3, 7);
  marked.prefix.back().answered = true;
  EXPECT_THAT(refused(marked), HasSubstr("prefix[2]"));
}

// There, single rows are multiplied in another way than text.
TEST(EngineResumeModeTest, AnswersGoOnInEmulatedModes) {
  const std::unique_ptr<Checkpoint> checkpoint = OpenNano();
  for (const LinearMode mode : {LinearMode::kW4A8Fp8, LinearMode::kW4A8Int8, LinearMode::kW4A4}) {
    Group first(*checkpoint, 1, 1,
                {.mode = mode,
                 .bf16_linears = {},
                 .activation_factors = {},
                 .head = HeadForm::kBf16,
                 .e4m3_scales = false});
    Group second(*checkpoint, 1, 1,
                 {.mode = mode,
                  .bf16_linears = {},
                  .activation_factors = {},
                  .head = HeadForm::kBf16,
                  .e4m3_scales = false});
    first.Attach();
    second.Attach();
    RequestPlan plan = MakeAnswerPlan(1, 11, 0.8f);
    plan.answer->max_new_tokens = 16;
    plan.answer->stop_token_id = 321;
    std::vector<int32_t> tokens;
    for (const WorkResult& result : first.Run({plan}, {AllWork(plan)})) {
      if (result.token.has_value()) tokens.push_back(result.token->id);
    }
    ASSERT_GE(tokens.size(), 3u);
    for (const size_t count : {size_t{1}, tokens.size() / 2, tokens.size() - 1}) {
      const RequestPlan resumed = ResumeAnswer(plan, absl::MakeConstSpan(tokens).first(count));
      std::vector<int32_t> all(tokens.begin(), tokens.begin() + static_cast<int64_t>(count));
      for (const WorkResult& result : second.Run({resumed}, {AllWork(resumed)})) {
        if (result.token.has_value()) all.push_back(result.token->id);
      }
      EXPECT_EQ(all, tokens) << LinearModeName(mode) << " behind " << count << " tokens";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Ranks, EngineResumeTest, ::testing::Values(1, 2));

}  // namespace
}  // namespace lancet
