#include "worker/loader/shard_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace lancet {
namespace {

using ::testing::ElementsAre;

ModelConfig MakeConfig(int64_t heads, int64_t kv_heads, int64_t inner) {
  ModelConfig config;
  config.head_dim = 128;
  config.num_heads = heads;
  config.num_kv_heads = kv_heads;
  config.hidden_size = heads * config.head_dim;
  config.intermediate_size = inner;
  return config;
}

std::vector<ShardPlan> AllRanks(const ModelConfig& config, int world_size) {
  std::vector<ShardPlan> plans;
  for (int rank = 0; rank < world_size; ++rank) plans.push_back(*MakeShardPlan(config, rank, world_size));
  return plans;
}

TEST(ShardPlanTest, SplitsTheReleaseModelOverTwoRanks) {
  const auto plans = AllRanks(MakeConfig(16, 2, 11008), 2);
  EXPECT_EQ(plans[0].query_heads, (Range{0, 8}));
  EXPECT_EQ(plans[1].query_heads, (Range{8, 16}));
  EXPECT_EQ(plans[0].kv_heads, (Range{0, 1}));
  EXPECT_EQ(plans[1].kv_heads, (Range{1, 2}));
  EXPECT_EQ(plans[1].inner, (Range{5504, 11008}));
  EXPECT_THAT(plans[1].kv_head_of, ElementsAre(0, 0, 0, 0, 0, 0, 0, 0));
}

TEST(ShardPlanTest, ReplicatesKeyValueHeadsBeyondTheirNumber) {
  const auto plans = AllRanks(MakeConfig(4, 2, 176), 4);
  EXPECT_EQ(plans[0].kv_heads, (Range{0, 1}));
  EXPECT_EQ(plans[1].kv_heads, (Range{0, 1}));
  EXPECT_EQ(plans[2].kv_heads, (Range{1, 2}));
  EXPECT_EQ(plans[3].kv_heads, (Range{1, 2}));
}

TEST(ShardPlanTest, UnevenBlocksGoToTheFirstRanks) {
  const auto plans = AllRanks(MakeConfig(4, 2, 176), 2);  // 11 blocks
  EXPECT_EQ(plans[0].inner, (Range{0, 96}));
  EXPECT_EQ(plans[1].inner, (Range{96, 176}));
}

TEST(ShardPlanTest, AHeadGroupThatCrossesRanksTakesBothKeyValueHeads) {
  const auto plans = AllRanks(MakeConfig(16, 2, 160), 3);  // 6, 5 and 5 heads; rank 1 has 6..10
  EXPECT_EQ(plans[1].kv_heads, (Range{0, 2}));
  EXPECT_THAT(plans[1].kv_head_of, ElementsAre(0, 0, 1, 1, 1));
}

TEST(ShardPlanTest, MoreRanksThanUnitsLeavesSomeEmpty) {
  const auto plans = AllRanks(MakeConfig(1, 1, 32), 4);
  EXPECT_EQ(plans[0].query_heads.size(), 1);
  EXPECT_EQ(plans[3].query_heads.size(), 0);
  EXPECT_EQ(plans[3].kv_heads.size(), 0);
  EXPECT_EQ(plans[1].inner.size(), 16);
  EXPECT_EQ(plans[2].inner.size(), 0);
}

TEST(ShardPlanTest, RanksCoverEveryLinearExactlyOnceExceptSharedHeads) {
  for (const int world_size : {1, 2, 3, 4, 5, 8}) {
    const ModelConfig config = MakeConfig(6, 3, 11 * 16);
    for (const ShardRule& rule : ShardRules()) {
      const int64_t extent = rule.unit == ShardUnit::kInner        ? config.intermediate_size
                             : rule.unit == ShardUnit::kQueryHeads ? config.num_heads * config.head_dim
                                                                   : config.num_kv_heads * config.head_dim;
      const int64_t rows = rule.axis == ShardAxis::kRows ? extent : 7;
      const int64_t cols = rule.axis == ShardAxis::kCols ? extent : 48;
      std::vector<int> owners(extent, 0);
      for (const ShardPlan& plan : AllRanks(config, world_size)) {
        const auto slice = SliceLinear(plan, rule.linear, rows, cols);
        ASSERT_TRUE(slice.ok()) << slice.status();
        const Range split = rule.axis == ShardAxis::kRows ? slice->rows : slice->cols;
        const Range whole = rule.axis == ShardAxis::kRows ? slice->cols : slice->rows;
        EXPECT_EQ(whole, (Range{0, rule.axis == ShardAxis::kRows ? cols : rows}));
        EXPECT_EQ(split.begin % kNvfp4Block, 0);
        for (int64_t i = split.begin; i < split.end; ++i) ++owners[i];
      }
      for (const int count : owners) {
        if (rule.unit == ShardUnit::kKvHeads) {
          EXPECT_GE(count, 1) << rule.linear;
        } else {
          EXPECT_EQ(count, 1) << rule.linear;
        }
      }
    }
  }
}

TEST(ShardPlanTest, RefusesWhatCannotBe) {
  EXPECT_EQ(MakeShardPlan(MakeConfig(4, 2, 176), 2, 2).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(MakeShardPlan(MakeConfig(4, 2, 176), -1, 2).status().code(), absl::StatusCode::kInvalidArgument);
  ModelConfig odd = MakeConfig(4, 2, 176);
  odd.head_dim = 24;
  EXPECT_TRUE(MakeShardPlan(odd, 0, 1).ok());
  EXPECT_EQ(MakeShardPlan(odd, 0, 2).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(SliceLinear(*MakeShardPlan(odd, 0, 1), "lm_head", 4, 4).status().code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace lancet
