#include "worker/loader/shard_plan.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace lancet {

absl::Span<const ShardRule> ShardRules() {
  static constexpr ShardRule kRules[] = {
      {"q_proj", ShardAxis::kRows, ShardUnit::kQueryHeads},
      {"k_proj", ShardAxis::kRows, ShardUnit::kKvHeads},
      {"v_proj", ShardAxis::kRows, ShardUnit::kKvHeads},
      {"o_proj", ShardAxis::kCols, ShardUnit::kQueryHeads},
      {"gate_proj", ShardAxis::kRows, ShardUnit::kInner},
      {"up_proj", ShardAxis::kRows, ShardUnit::kInner},
      {"down_proj", ShardAxis::kCols, ShardUnit::kInner},
  };
  return kRules;
}

absl::StatusOr<ShardPlan> MakeShardPlan(const ModelConfig& config, int rank, int world_size) {
  if (world_size < 1 || rank < 0 || rank >= world_size) {
    return absl::InvalidArgumentError(absl::StrCat("rank ", rank, " of a group of ", world_size,
                                                   " ranks: expected 0 <= rank < world size"));
  }
  if (config.head_dim % kNvfp4Block != 0 && world_size > 1) {
    return absl::InvalidArgumentError(absl::StrCat("head_dim ", config.head_dim, " is not a multiple of ",
                                                   kNvfp4Block, ": its o_proj cannot be split over ",
                                                   world_size, " ranks"));
  }
  ShardPlan plan;
  plan.rank = rank;
  plan.world_size = world_size;
  plan.head_dim = config.head_dim;
  plan.query_heads = SplitEvenly(config.num_heads, rank, world_size);
  const Range blocks = SplitEvenly(config.intermediate_size / kNvfp4Block, rank, world_size);
  plan.inner = {blocks.begin * kNvfp4Block, blocks.end * kNvfp4Block};
  const int64_t group = config.num_heads / config.num_kv_heads;
  if (plan.query_heads.size() > 0) {
    plan.kv_heads = {plan.query_heads.begin / group, (plan.query_heads.end - 1) / group + 1};
  }
  for (int64_t head = plan.query_heads.begin; head < plan.query_heads.end; ++head) {
    plan.kv_head_of.push_back(static_cast<int32_t>(head / group - plan.kv_heads.begin));
  }
  return plan;
}

absl::StatusOr<LinearSlice> SliceLinear(const ShardPlan& plan, absl::string_view linear, int64_t rows,
                                        int64_t cols) {
  for (const ShardRule& rule : ShardRules()) {
    if (rule.linear != linear) continue;
    Range range;
    switch (rule.unit) {
      case ShardUnit::kQueryHeads:
        range = {plan.query_heads.begin * plan.head_dim, plan.query_heads.end * plan.head_dim};
        break;
      case ShardUnit::kKvHeads:
        range = {plan.kv_heads.begin * plan.head_dim, plan.kv_heads.end * plan.head_dim};
        break;
      case ShardUnit::kInner:
        range = plan.inner;
        break;
    }
    const Range all_rows{0, rows};
    const Range all_cols{0, cols};
    return rule.axis == ShardAxis::kRows ? LinearSlice{range, all_cols} : LinearSlice{all_rows, range};
  }
  return absl::NotFoundError(absl::StrCat("no sharding rule for Linear '", linear, "'"));
}

}  // namespace lancet
