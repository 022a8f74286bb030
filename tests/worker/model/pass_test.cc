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
  pass.AddTarget(&a, Line(0, 4));       // marker, two latents, marker
  pass.AddText(&b, Line(10, 3), 1, 2);  // rows 11 and 12
  pass.AddTarget(&b, Line(20, 3));
  pass.Finish();
  EXPECT_EQ(pass.und_rows(), 6);
  EXPECT_EQ(pass.gen_rows(), 3);
  EXPECT_THAT(pass.blocks()[0].rows, ElementsAre(0, 6, 7, 1));
  EXPECT_THAT(pass.blocks()[1].rows, ElementsAre(2, 3));
  EXPECT_THAT(pass.blocks()[2].rows, ElementsAre(4, 8, 5));
  EXPECT_THAT(pass.RowPositions().t, ElementsAre(0, 3, 11, 12, 20, 22, 1, 2, 21));
  EXPECT_THAT(pass.Wide(), ElementsAre(1, 1, 0, 0, 1, 1, 1, 1, 1));
  EXPECT_TRUE(pass.blocks()[1].append);
  EXPECT_TRUE(pass.blocks()[1].causal);
  EXPECT_FALSE(pass.blocks()[2].append);
  EXPECT_FALSE(pass.blocks()[2].causal);
}

TEST(KvCacheTest, AForkHoldsTheSameRowsAndGrowsAlone) {
  KvCache cache(2, 3, 2);
  for (int64_t layer = 0; layer < 2; ++layer) {
    cache.KeyRow(layer, 0)[1] = ToBf16(static_cast<float>(layer + 1));
    cache.ValueRow(layer, 0)[0] = ToBf16(static_cast<float>(layer + 5));
  }
  cache.Advance(1);
  KvCache fork(2, 9, 2);
  fork.ForkFrom(cache, 2);
  EXPECT_EQ(fork.tokens(), 1);
  EXPECT_EQ(ToFloat(fork.Keys(1).row(0)[1]), 2.0f);
  EXPECT_EQ(ToFloat(fork.Values(1).row(0)[0]), 6.0f);
  fork.KeyRow(0, 1)[0] = ToBf16(9.0f);
  fork.Advance(1);
  EXPECT_EQ(cache.tokens(), 1);
  EXPECT_EQ(fork.tokens(), 2);
}

}  // namespace
}  // namespace lancet
