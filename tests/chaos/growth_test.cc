#include "tests/chaos/growth.h"

#include <cmath>
#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lancet {
namespace {

using testing::HasSubstr;

// `windows` values around `level` that grow by `growth` in all and vary by `noise` (standard deviation).
GrowthSeries Series(size_t windows, double level, double growth, double noise) {
  GrowthSeries series{
      .name = "memory", .unit = "MiB", .values = {}, .relative_limit = 0.05, .absolute_limit = 1};
  std::mt19937_64 random(7);
  for (size_t i = 0; i < windows; ++i) {
    const double age = static_cast<double>(i) / static_cast<double>(windows - 1);
    series.values.push_back(level + growth * age + std::normal_distribution<double>(0, noise)(random));
  }
  return series;
}

TEST(GrowthTest, TakesMedians) {
  EXPECT_EQ(Median({}), 0);
  EXPECT_EQ(Median({3, 1, 2}), 2);
  EXPECT_EQ(Median({4, 1, 2, 3}), 2.5);
}

TEST(GrowthTest, SeesASteadyLeakThroughNoise) {
  const Growth growth = JudgeGrowth(Series(60, 100, 10, 1), 0);
  EXPECT_NEAR(growth.trend, 10, 1.5);
  EXPECT_NEAR(growth.limit, 5.25, 0.2);
  EXPECT_TRUE(growth.grown);
}

TEST(GrowthTest, LetsNoisePass) {
  const Growth growth = JudgeGrowth(Series(60, 100, 0, 3), 0);
  EXPECT_LT(std::abs(growth.trend), growth.limit);
  EXPECT_FALSE(growth.grown);
}

TEST(GrowthTest, TakesMoreThanScatterToBeGrowth) {
  GrowthSeries series = Series(45, 1, 0.15, 0.3);
  series.absolute_limit = 0.1;
  EXPECT_GT(JudgeGrowth(series, 0).scatter, 0.2);
  EXPECT_FALSE(JudgeGrowth(series, 0).grown);
  series = Series(45, 1, 0.3, 0.03);
  series.absolute_limit = 0.1;
  EXPECT_LT(JudgeGrowth(series, 0).scatter, 0.1);
  EXPECT_TRUE(JudgeGrowth(series, 0).grown);
}

TEST(GrowthTest, LetsAFallPass) { EXPECT_FALSE(JudgeGrowth(Series(60, 100, -30, 1), 0).grown); }

TEST(GrowthTest, LetsAFewBadWindowsPass) {
  GrowthSeries series = Series(30, 100, 0, 0.1);
  for (const size_t late : {24, 26, 27, 29}) series.values[late] = 500;
  EXPECT_FALSE(JudgeGrowth(series, 0).grown);
}

TEST(GrowthTest, SeesAStepThatStays) {
  GrowthSeries series = Series(30, 100, 0, 0.1);
  for (size_t i = 15; i < 30; ++i) series.values[i] += 20;
  EXPECT_TRUE(JudgeGrowth(series, 0).grown);
}

TEST(GrowthTest, ForgetsWarmingUp) {
  GrowthSeries series = Series(20, 100, 0, 0.1);
  for (size_t i = 0; i < 5; ++i) series.values[i] = 10;
  EXPECT_FALSE(JudgeGrowth(series, 5).grown);
  EXPECT_NEAR(JudgeGrowth(series, 5).trend, 0, 0.3);
}

TEST(GrowthTest, TakesTheLargerLimit) {
  EXPECT_EQ(JudgeGrowth(Series(9, 10, 0, 0), 0).limit, 1);
  EXPECT_EQ(JudgeGrowth(Series(9, 100, 0, 0), 0).limit, 5);
}

TEST(GrowthTest, SaysNothingOfTooFewWindows) {
  EXPECT_FALSE(JudgeGrowth(Series(4, 1, 1000, 0), 2).grown);
  EXPECT_FALSE(JudgeGrowth({.name = "", .unit = "", .values = {}}, 3).grown);
}

TEST(GrowthTest, PrintsAVerdict) {
  EXPECT_THAT(GrowthLine(Series(60, 100, 10, 0), 0), HasSubstr("GROWS"));
  EXPECT_THAT(GrowthLine(Series(60, 100, 0, 0), 0), HasSubstr("ok"));
  EXPECT_THAT(GrowthLine(Series(60, 100, 0, 0), 0), HasSubstr("memory, MiB"));
}

}  // namespace
}  // namespace lancet
