#include "worker/model/rope_table.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace lancet {
namespace {

ModelConfig ReleaseConfig() {
  ModelConfig config;
  config.head_dim = 128;
  return config;
}

TEST(RopeTableTest, FrequenciesAreRoundedToBf16) {
  const RopeTable table(ReleaseConfig());
  std::vector<bf16> cos(64);
  std::vector<bf16> sin(64);
  // Frequency 1 is 0x3f4e as bf16; unrounded it would be 0.8058, and the angle at 1009 off by more than a
  // radian.
  table.Row(1009, 0, 0, cos.data(), sin.data());
  const float frequency = ToFloat(bf16{0x3f4e});
  EXPECT_EQ(cos[1], ToBf16(static_cast<float>(std::cos(static_cast<double>(1009.0f * frequency)))));
  EXPECT_EQ(sin[1], ToBf16(static_cast<float>(std::sin(static_cast<double>(1009.0f * frequency)))));
}

TEST(RopeTableTest, AxesTakeTheirSections) {
  const RopeTable table(ReleaseConfig());
  std::vector<bf16> cos(64);
  std::vector<bf16> sin(64);
  table.Row(0, 7, 0, cos.data(), sin.data());
  for (int f = 0; f < 64; ++f) {
    const bool turned = f >= 16 && f < 40;
    EXPECT_EQ(ToFloat(sin[f]) != 0.0f, turned) << f;
  }
}

}  // namespace
}  // namespace lancet
