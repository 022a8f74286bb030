// Which part of every NVFP4 Linear a rank owns: a table, and integer arithmetic on shapes alone.
//
//   q_proj             output rows, by query head
//   k_proj, v_proj     output rows: the key/value heads that the rank's query heads read (so shared heads are
//   replicated) o_proj             input columns, by query head; partial sums are added over the ranks
//   gate_proj, up_proj output rows, in whole 16-blocks of the inner width
//   down_proj          input columns, in whole 16-blocks of the inner width; partial sums are added over the
//   ranks
// Both experts split alike. Everything else is replicated. Counts that do not divide give uneven shares; with
// more ranks than units some ranks own nothing of a Linear and contribute zeros.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/model_config.h"
#include "common/partition.h"

namespace lancet {

// What the extent of a split Linear is counted in.
enum class ShardUnit { kQueryHeads, kKvHeads, kInner };
enum class ShardAxis { kRows, kCols };

struct ShardRule {
  absl::string_view linear;  // "q_proj": the name without expert suffix
  ShardAxis axis;
  ShardUnit unit;
};

absl::Span<const ShardRule> ShardRules();

struct ShardPlan {
  int rank = 0;
  int world_size = 1;
  int64_t head_dim = 0;
  Range query_heads;
  Range kv_heads;
  Range inner;                      // in columns; both ends are multiples of 16
  std::vector<int32_t> kv_head_of;  // per own query head: index of its key/value head among the rank's own

  int64_t q_cols() const { return query_heads.size() * head_dim; }
  int64_t kv_cols() const { return kv_heads.size() * head_dim; }
};

// InvalidArgument for a rank outside the world, or a head_dim that cannot be split in 16-blocks.
absl::StatusOr<ShardPlan> MakeShardPlan(const ModelConfig& config, int rank, int world_size);

// The rank's rows and columns of a Linear of the full extent [rows, cols].
struct LinearSlice {
  Range rows;
  Range cols;
};

// NotFound for a name that ShardRules does not list.
absl::StatusOr<LinearSlice> SliceLinear(const ShardPlan& plan, absl::string_view linear, int64_t rows,
                                        int64_t cols);

}  // namespace lancet
