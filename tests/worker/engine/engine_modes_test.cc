// Engines that emulate a GPU's products: that the mode reaches every Linear it should, and that a request's
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
  const RequestPlan a = MakePlan(1, 7);
  const RequestPlan b = MakeEditPlan(2, 8);
  Group group(*checkpoint_, 1, 1, In({}));
  group.Attach();
  const RgbImage alone = Draw(group, a);
  EXPECT_NE(alone, Draw(plain, a));
  EXPECT_NE(Draw(group, b), Draw(plain, b));

  // Each step of one beside one of the other; with two threads.
  Group busy(*checkpoint_, 1, 2, In({}));
  busy.Attach();
  const std::vector<Work> work_a = AllWork(a);
  const std::vector<Work> work_b = AllWork(b);
  std::vector<std::vector<Work>> batches;
  for (size_t i = 0; i < std::max(work_a.size(), work_b.size()); ++i) {
    std::vector<Work>& batch = batches.emplace_back();
    if (i < work_b.size()) batch.push_back(work_b[i]);
    if (i < work_a.size()) batch.push_back(work_a[i]);
  }
  const std::vector<WorkResult> results = busy.Run({a, b}, batches);
  const auto drawn_beside = [&](const RgbImage& image) {
    return std::any_of(results.begin(), results.end(),
                       [&](const WorkResult& result) { return result.image == image; });
  };
  EXPECT_TRUE(drawn_beside(alone));
  EXPECT_TRUE(drawn_beside(Draw(group, b)));
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

INSTANTIATE_TEST_SUITE_P(Modes, EngineModesTest, ::testing::Values(LinearMode::kW4A8Fp8, LinearMode::kW4A4),
                         [](const auto& mode) { return std::string(LinearModeName(mode.param)); });

}  // namespace
}  // namespace lancet
