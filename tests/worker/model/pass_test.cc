#include "worker/model/pass.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lancet {
namespace {

using ::testing::ElementsAre;

Positions Line(int32_t first, int32_t count) {
  Positions positions;
  for (int32_t i = 0; i < count; ++i) {
    positions.t.push_back(first + i);
    positions.h.push_back(100 + first + i);
    positions.w.push_back(200 + first + i);
  }
  return positions;
}

TEST(PassTest, GathersUndRowsBeforeGenRowsWhoeverTheyBelongTo) {
  KvCache a(1, 8, 4);
  KvCache b(1, 8, 4);
  Pass pass;
  pass.AddLatents(&a, Line(0, 4), /*append=*/false);  // marker, two latents, marker
  pass.AddText(&b, Line(10, 3), 1, 2);                // rows 11 and 12
  pass.AddLatents(&b, Line(20, 3), /*append=*/true);
  pass.Finish();
  EXPECT_EQ(pass.und_rows(), 6);
  EXPECT_EQ(pass.gen_rows(), 3);
  EXPECT_THAT(pass.blocks()[0].rows, ElementsAre(0, 6, 7, 1));
  EXPECT_THAT(pass.blocks()[1].rows, ElementsAre(2, 3));
  EXPECT_THAT(pass.blocks()[2].rows, ElementsAre(4, 8, 5));
  EXPECT_THAT(pass.RowPositions().t, ElementsAre(0, 3, 11, 12, 20, 22, 1, 2, 21));
  EXPECT_THAT(pass.Wide(), ElementsAre(1, 1, 0, 0, 1, 1, 1, 1, 1));
  EXPECT_THAT(pass.Single(), ElementsAre(1, 1, 0, 0, 1, 1, 0, 0, 0));
  EXPECT_TRUE(pass.blocks()[1].append);
  EXPECT_TRUE(pass.blocks()[1].causal);
  EXPECT_TRUE(pass.blocks()[2].append);
  EXPECT_FALSE(pass.blocks()[2].causal);
}

TEST(PassTest, TokensOfAnswersAreSingleRowsOfTextAreNot) {
  KvCache a(1, 8, 4);
  KvCache b(1, 8, 4);
  Pass pass;
  pass.AddText(&a, Line(3, 4), 1, 1);
  pass.AddAnswer(&b, 9);
  pass.Finish();
  EXPECT_THAT(pass.Single(), ElementsAre(0, 1));
  EXPECT_THAT(pass.Wide(), ElementsAre(0, 0));
  EXPECT_THAT(pass.RowPositions().w, ElementsAre(204, 9));
  EXPECT_TRUE(pass.blocks()[1].append);
  EXPECT_TRUE(pass.blocks()[1].causal);
}

TEST(PassTest, PicturesBecomeBlocksThatSeeAllOfThemselves) {
  KvCache cache(1, 8, 4);
  Pass pass;
  pass.AddVision(&cache, Line(0, 4));
  pass.AddLatents(&cache, Line(10, 3), /*append=*/true);
  pass.Finish();
  EXPECT_EQ(pass.und_rows(), 6);
  EXPECT_EQ(pass.gen_rows(), 1);
  EXPECT_THAT(pass.Wide(), ElementsAre(0, 0, 0, 0, 1, 1, 1));
  for (const PassBlock& block : pass.blocks()) {
    EXPECT_TRUE(block.append);
    EXPECT_FALSE(block.causal);
  }
}

TEST(KvCacheTest, TwoCachesGoOnFromOneBeginning) {
  KvCache shared(2, 3, 2);
  for (int64_t layer = 0; layer < 2; ++layer) {
    shared.KeyRow(layer, 0)[1] = ToBf16(static_cast<float>(layer + 1));
    shared.ValueRow(layer, 0)[0] = ToBf16(static_cast<float>(layer + 5));
  }
  shared.Advance(1);
  KvCache a(2, 9, 2, &shared);
  KvCache b(2, 9, 2, &shared);
  ASSERT_EQ(a.PastOf(1).parts().size(), 1u);
  EXPECT_EQ(ToFloat(a.PastOf(1).parts()[0].k.row(0)[1]), 2.0f);
  EXPECT_EQ(ToFloat(b.PastOf(1).parts()[0].v.row(0)[0]), 6.0f);
  a.KeyRow(0, 0)[0] = ToBf16(9.0f);
  a.Advance(1);
  const KvCache::Past past = a.PastOf(0);
  ASSERT_EQ(past.parts().size(), 2u);
  EXPECT_EQ(ToFloat(past.parts()[1].k.row(0)[0]), 9.0f);
  EXPECT_EQ(a.tokens(), 1);
  EXPECT_EQ(b.PastOf(0).parts().size(), 1u);
  EXPECT_EQ(shared.tokens(), 1);
}

}  // namespace
}  // namespace lancet
