#include "worker/model/vision/vision_shard_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/status_matchers.h"

namespace lancet {
namespace {

VisionConfig ReleaseConfig() {
  VisionConfig config;
  config.depth = 32;
  config.hidden_size = 1280;
  config.num_heads = 16;
  config.head_dim = 80;
  config.intermediate_size = 3420;
  config.out_hidden_size = 2048;
  return config;
}

TEST(VisionShardPlanTest, SharesCoverEverythingOnce) {
  VisionConfig demo = ReleaseConfig();
  demo.num_heads = 3;
  demo.hidden_size = 240;
  demo.intermediate_size = 470;
  for (const VisionConfig& config : {ReleaseConfig(), demo}) {
    for (int world = 1; world <= 7; ++world) {
      int64_t heads = 0;
      int64_t inner = 0;
      int64_t merged = 0;
      for (int rank = 0; rank < world; ++rank) {
        const VisionShardPlan plan = MakeVisionShardPlan(config, rank, world).value();
        EXPECT_EQ(plan.heads.begin, heads);
        EXPECT_EQ(plan.inner.begin, inner);
        EXPECT_EQ(plan.merged.begin, merged);
        EXPECT_TRUE(plan.inner.begin % 16 == 0 || plan.inner.size() == 0);
        heads = plan.heads.end;
        inner = plan.inner.end;
        merged = plan.merged.end;
      }
      EXPECT_EQ(heads, config.num_heads);
      EXPECT_EQ(inner, config.intermediate_size);
      EXPECT_EQ(merged, config.merged_size());
    }
  }
}

TEST(VisionShardPlanTest, SomeRanksOwnNoHead) {
  VisionConfig config = ReleaseConfig();
  config.num_heads = 3;
  EXPECT_EQ(MakeVisionShardPlan(config, 0, 2)->heads.size(), 2);
  EXPECT_EQ(MakeVisionShardPlan(config, 1, 2)->heads.size(), 1);
  EXPECT_EQ(MakeVisionShardPlan(config, 3, 4)->heads.size(), 0);
  EXPECT_EQ(MakeVisionShardPlan(config, 3, 4)->head_cols(), 0);
}

TEST(VisionShardPlanTest, RefusesRanksOutsideTheWorld) {
  for (const auto& [rank, world] : {std::pair(-1, 2), std::pair(2, 2), std::pair(0, 0)}) {
    EXPECT_THAT(MakeVisionShardPlan(ReleaseConfig(), rank, world),
                Fails(absl::StatusCode::kInvalidArgument, ::testing::HasSubstr("world size")));
  }
}

}  // namespace
}  // namespace lancet
