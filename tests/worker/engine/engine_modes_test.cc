// Engines in other modes than kW4A16: that the mode reaches every Linear it should, and that a request's
// bytes still depend on the request alone.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/testing/status_matchers.h"
#include "tests/worker/engine/engine_testing.h"

namespace lancet {
namespace {

using ::testing::HasSubstr;

class EngineModesTest : public ::testing::TestWithParam<LinearMode> {
 protected:
  static void SetUpTestSuite() { checkpoint_ = OpenNano().release(); }
  static void TearDownTestSuite() {
    delete checkpoint_;
    checkpoint_ = nullptr;
  }
  static LinearPolicyOptions In(const std::vector<std::string>& bf16_linears) {
    LinearPolicyOptions options;
    options.mode = GetParam();
    options.bf16_linears = bf16_linears;
    return options;
  }
  static Checkpoint* checkpoint_;
};
Checkpoint* EngineModesTest::checkpoint_ = nullptr;

TEST_P(EngineModesTest, DrawsOtherBytesThatDoNotDependOnNeighbours) {
  Group plain(*checkpoint_, 1);
  plain.Attach();
  const RequestPlan drawn = MakePlan(1, 7);
  const RequestPlan asked = MakeAnswerPlan(2, 8);
  Group group(*checkpoint_, 1, 1, In({}));
  group.Attach();
  const RgbImage alone = Draw(group, drawn);
  EXPECT_NE(alone, Draw(plain, drawn));
  const std::vector<WorkResult> answer = group.Run({asked}, {AllWork(asked)});

  // Each step of one beside one of the other: text, latents, markers and tokens of the answer share passes.
  Group busy(*checkpoint_, 1, 1, In({}));
  busy.Attach();
  const std::vector<Work> draw_work = AllWork(drawn);
  const std::vector<Work> ask_work = AllWork(asked);
  std::vector<std::vector<Work>> batches;
  for (size_t i = 0; i < std::max(draw_work.size(), ask_work.size()); ++i) {
    std::vector<Work>& batch = batches.emplace_back();
    if (i < ask_work.size()) batch.push_back(ask_work[i]);
    if (i < draw_work.size()) batch.push_back(draw_work[i]);
  }
  std::vector<AnswerToken> tokens;
  RgbImage beside;
  for (const WorkResult& result : busy.Run({drawn, asked}, batches)) {
    if (result.token.has_value()) tokens.push_back(*result.token);
    if (result.image.has_value()) beside = *result.image;
  }
  EXPECT_EQ(beside, alone);
  std::vector<AnswerToken> expected;
  for (const WorkResult& result : answer) {
    if (result.token.has_value()) expected.push_back(*result.token);
  }
  EXPECT_EQ(tokens, expected);
  EXPECT_FALSE(tokens.empty());
}

TEST_P(EngineModesTest, RanksShareTheWork) {
  Group group(*checkpoint_, 2, 1, In({}));
  group.Attach();
  const RgbImage first = Draw(group, MakePlan(1, 7));
  EXPECT_EQ(Draw(group, MakePlan(2, 7)), first);
}

TEST_P(EngineModesTest, ExceptionsForEveryLinearGiveTheBytesOfW4a16) {
  Group plain(*checkpoint_, 1);
  plain.Attach();
  Group group(*checkpoint_, 1, 1, In({"*"}));
  group.Attach();
  EXPECT_EQ(Draw(group, MakePlan(1, 7)), Draw(plain, MakePlan(1, 7)));
  Group some(*checkpoint_, 1, 1, In({"*_proj_moe_gen", "*mlp_moe_gen*"}));
  some.Attach();
  EXPECT_NE(Draw(some, MakePlan(1, 7)), Draw(plain, MakePlan(1, 7)));
}

TEST_P(EngineModesTest, NamesAPatternThatMatchesNothing) {
  EngineOptions options;
  options.linears = In({"*.gate"});
  EXPECT_THAT(Engine::Load(*checkpoint_, options),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("'*.gate' matches no Linear")));
}

INSTANTIATE_TEST_SUITE_P(Modes, EngineModesTest,
                         ::testing::Values(LinearMode::kW4A8Fp8, LinearMode::kW4A8Int8, LinearMode::kW4A4),
                         [](const auto& mode) { return std::string(LinearModeName(mode.param)); });

}  // namespace
}  // namespace lancet
