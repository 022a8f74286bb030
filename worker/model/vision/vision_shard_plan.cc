#include "worker/model/vision/vision_shard_plan.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace lancet {
namespace {

// Shares begin at multiples of this, so that vectors of a row are whole in all ranks but the last.
constexpr int64_t kUnit = 16;

Range SplitColumns(int64_t cols, int rank, int world_size) {
  const Range units = SplitEvenly((cols + kUnit - 1) / kUnit, rank, world_size);
  return {std::min(units.begin * kUnit, cols), std::min(units.end * kUnit, cols)};
}

}  // namespace

absl::StatusOr<VisionShardPlan> MakeVisionShardPlan(const VisionConfig& config, int rank, int world_size) {
  if (world_size < 1 || rank < 0 || rank >= world_size) {
    return absl::InvalidArgumentError(absl::StrCat("rank ", rank, " of a group of ", world_size,
                                                   " ranks: expected 0 <= rank < world size"));
  }
  VisionShardPlan plan;
  plan.rank = rank;
  plan.world_size = world_size;
  plan.head_dim = config.head_dim;
  plan.heads = SplitEvenly(config.num_heads, rank, world_size);
  plan.inner = SplitColumns(config.intermediate_size, rank, world_size);
  plan.merged = SplitColumns(config.merged_size(), rank, world_size);
  return plan;
}

}  // namespace lancet
