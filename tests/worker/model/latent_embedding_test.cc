#include "worker/model/latent_embedding.h"

#include <gtest/gtest.h>

#include <vector>

namespace lancet {
namespace {

TEST(LatentPositionTableTest, MatchesPublishedEntries) {
  const LatentPositionTable table(2048, 64);
  std::vector<bf16> row(2048);
  table.Row(2 * 4096 + 7 * 64 + 9, row.data());
  EXPECT_EQ(ToFloat(row[0]), 0.91015625f);
  EXPECT_EQ(ToFloat(row[1]), 0.9296875f);
  EXPECT_EQ(ToFloat(row[341]), -0.416015625f);
  EXPECT_EQ(ToFloat(row[682]), 0.65625f);
  EXPECT_EQ(ToFloat(row[683]), 0.50390625f);
  EXPECT_EQ(ToFloat(row[1023]), 0.75390625f);
  EXPECT_EQ(ToFloat(row[1364]), 0.412109375f);
  EXPECT_EQ(ToFloat(row[1365]), 0.6171875f);
  EXPECT_EQ(ToFloat(row[1706]), -0.91015625f);
}

TEST(LatentPositionTableTest, APictureWiderThanTheTableSpillsIntoTheNextLine) {
  const LatentPositionTable table(512, 64);
  std::vector<bf16> wide(512);
  std::vector<bf16> next(512);
  table.Row(table.FlatIndex(3, 64), wide.data());
  table.Row(table.FlatIndex(4, 0), next.data());
  EXPECT_EQ(wide, next);
}

TEST(TimeFeaturesTest, CosinesComeFirst) {
  const std::vector<float> features = TimeFeatures(0.5f, 256);
  EXPECT_NEAR(features[0], .877583f, 1e-6);
  EXPECT_NEAR(features[1], .893693f, 1e-6);
  EXPECT_NEAR(features[64], .999988f, 1e-6);
  EXPECT_NEAR(features[128], .479426f, 1e-6);
  EXPECT_NEAR(features[129], .448678f, 1e-6);
  EXPECT_NEAR(features[192], .005000f, 1e-6);
}

}  // namespace
}  // namespace lancet
