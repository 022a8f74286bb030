#include "client/progress.h"

#include "gtest/gtest.h"

namespace lancet {
namespace {

ProgressInfo Step(int step, int total) {
  return {.step = step,
          .total_steps = total,
          .elapsed = absl::Seconds(4.2),
          .estimated_remaining = absl::Seconds(6.1)};
}

TEST(ProgressTest, SecondsKeepThreeDigits) {
  EXPECT_EQ(FormatSeconds(absl::ZeroDuration()), "0.00 s");
  EXPECT_EQ(FormatSeconds(absl::Milliseconds(347)), "0.35 s");
  EXPECT_EQ(FormatSeconds(absl::Seconds(12.34)), "12.3 s");
  EXPECT_EQ(FormatSeconds(absl::Seconds(245)), "4 min 05 s");
}

TEST(ProgressTest, BarFillsTheLine) {
  const std::string bar = ProgressBar(Step(12, 30), 50);
  EXPECT_EQ(bar, "[=======>             ] 12/30  4.20 s, 6.10 s left");
  EXPECT_EQ(ProgressBar(Step(0, 30), 20).substr(0, 12), "[          ]");
  EXPECT_EQ(ProgressBar(Step(30, 30), 20).substr(0, 12), "[==========]");
}

TEST(ProgressTest, BarSurvivesOddNumbers) {
  EXPECT_EQ(ProgressBar(Step(7, 0), 20).substr(0, 12), "[==========]");
  EXPECT_EQ(ProgressBar(Step(-1, 3), 20).substr(0, 12), "[          ]");
}

TEST(ProgressTest, MilestonesAreFewAndEndWithTheLast) {
  int count = 0;
  for (int step = 1; step <= 30; ++step) count += IsMilestone(Step(step, 30)) ? 1 : 0;
  EXPECT_EQ(count, 10);
  EXPECT_TRUE(IsMilestone(Step(7, 7)));
  EXPECT_TRUE(IsMilestone(Step(31, 31)));
}

}  // namespace
}  // namespace lancet
