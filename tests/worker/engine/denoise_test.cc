#include "worker/engine/denoise.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace lancet {
namespace {

std::vector<bf16> Values(std::initializer_list<float> values) {
  std::vector<bf16> out;
  for (const float v : values) out.push_back(ToBf16(v));
  return out;
}

TEST(TimestepScheduleTest, RunsFromOneToZeroWithTheShift) {
  const std::vector<float> t = TimestepSchedule(30, 3.5f);
  ASSERT_EQ(t.size(), 31u);
  EXPECT_EQ(t[0], 1.0f);
  EXPECT_EQ(t[30], 0.0f);
  EXPECT_NEAR(t[1], .990244f, 1e-6);
  EXPECT_NEAR(t[15], .777778f, 1e-6);
  EXPECT_NEAR(t[29], .107692f, 1e-6);
}

TEST(TimestepScheduleTest, GuidanceCoversTheFirst26Of30Steps) {
  const std::vector<float> t = TimestepSchedule(30, 3.5f);
  SamplerParams sampler;
  int guided = 0;
  for (int i = 0; i < 30; ++i) guided += IsGuided(sampler, t[i]) ? 1 : 0;
  EXPECT_EQ(guided, 26);
  EXPECT_TRUE(IsGuided(sampler, t[25]));
  EXPECT_FALSE(IsGuided(sampler, t[26]));
  sampler.guidance_scale = 1.0f;
  EXPECT_FALSE(IsGuided(sampler, 1.0f));
}

TEST(ApplyGuidanceTest, RenormalisesToTheConditionalNorm) {
  std::vector<bf16> v = Values({3, 4});
  const std::vector<bf16> u = Values({0, 0});
  // w = 4 v, so the factor is 1 / 4 and the direction stays.
  const float gain =
      ApplyGuidance(4.0f, ConstMatrixView<bf16>(u.data(), 1, 2), MatrixView<bf16>(v.data(), 1, 2));
  EXPECT_NEAR(gain, 0.25f, 1e-6);
  EXPECT_EQ(ToFloat(v[0]), 3.0f);
  EXPECT_EQ(ToFloat(v[1]), 4.0f);
}

TEST(ApplyGuidanceTest, NeverEnlarges) {
  std::vector<bf16> v = Values({4, 0});
  const std::vector<bf16> u = Values({5, 0});
  // w = 5 + 2 (4 - 5) = 3 is shorter than v: the factor stops at 1.
  EXPECT_EQ(ApplyGuidance(2.0f, ConstMatrixView<bf16>(u.data(), 1, 2), MatrixView<bf16>(v.data(), 1, 2)),
            1.0f);
  EXPECT_EQ(ToFloat(v[0]), 3.0f);
}

TEST(ApplyGuidanceTest, EqualBranchesChangeNothing) {
  std::vector<bf16> v = Values({0.3f, -1.7f, 2.2f, 0});
  const std::vector<bf16> before = v;
  ApplyGuidance(4.0f, ConstMatrixView<bf16>(before.data(), 2, 2), MatrixView<bf16>(v.data(), 2, 2));
  EXPECT_EQ(v, before);
}

TEST(EulerStepTest, RoundsStepAndProductToBf16) {
  std::vector<bf16> x = Values({1.0f});
  const std::vector<bf16> v = Values({1.0f});
  EulerStep(ConstMatrixView<bf16>(v.data(), 1, 1), 0.009756088f, MatrixView<bf16>(x.data(), 1, 1));
  EXPECT_EQ(x[0], ToBf16(1.0f - 0.009765625f));
}

TEST(EstimateCleanTest, FollowsTheVelocityToTimeZero) {
  const std::vector<bf16> x = Values({2.0f, -1.0f});
  const std::vector<bf16> v = Values({4.0f, 0.5f});
  const std::vector<float> clean =
      EstimateClean(ConstMatrixView<bf16>(x.data(), 1, 2), ConstMatrixView<bf16>(v.data(), 1, 2), 0.25f);
  EXPECT_EQ(clean, (std::vector<float>{1.0f, -1.125f}));
}

}  // namespace
}  // namespace lancet
