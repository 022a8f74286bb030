#include "worker/model/vision/vision_rotary.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace lancet {
namespace {

TEST(VisionRotaryTableTest, FrequenciesAreThePublishedOnes) {
  EXPECT_THAT(
      VisionRotaryTable(80).frequencies(),
      ::testing::ElementsAre(1.0f, 0.6328125f, 0.3984375f, 0.251953125f, 0.158203125f, 0.10009765625f,
                             0.06298828125f, 0.039794921875f, 0.025146484375f, 0.015869140625f,
                             0.010009765625f, 0.006317138671875f, 0.00396728515625f, 0.0025177001953125f,
                             0.0015869140625f, 0.00099945068359375f, 0.000629425048828125f,
                             0.0003986358642578125f, 0.00025177001953125f, 0.0001583099365234375f));
}

TEST(VisionRotaryTableTest, RowsThenColumns) {
  const VisionRotaryTable table(80);
  ASSERT_EQ(table.num_angles(), 40);
  std::vector<bf16> cos(40), sin(40), turned_cos(40), turned_sin(40);
  table.Row({3, 17}, cos.data(), sin.data());
  table.Row({17, 3}, turned_cos.data(), turned_sin.data());
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(cos[i], turned_cos[20 + i]);
    EXPECT_EQ(sin[20 + i], turned_sin[i]);
    EXPECT_EQ(sin[i], ToBf16(static_cast<float>(std::sin(RoundToBf16(3.0f * table.frequencies()[i])))));
  }
}

// 47 * 0.6328125 = 29.742 becomes 29.75 in bf16.
TEST(VisionRotaryTableTest, AnglesAreRoundedToo) {
  const VisionRotaryTable table(80);
  std::vector<bf16> cos(40), sin(40);
  table.Row({47, 0}, cos.data(), sin.data());
  EXPECT_EQ(cos[1], ToBf16(static_cast<float>(std::cos(29.75))));
  EXPECT_NE(cos[1], ToBf16(static_cast<float>(std::cos(29.7421875))));
  EXPECT_EQ(ToFloat(cos[20]), 1.0f);
  EXPECT_EQ(ToFloat(sin[39]), 0.0f);
}

// 257 is no bf16 number; 256 and 258 are.
TEST(VisionRotaryTableTest, PositionsAreRoundedToo) {
  const VisionRotaryTable table(16);
  std::vector<bf16> a(8), b(8), sin(8);
  table.Row({257, 0}, a.data(), sin.data());
  table.Row({256, 0}, b.data(), sin.data());
  EXPECT_EQ(a, b);
}

}  // namespace
}  // namespace lancet
