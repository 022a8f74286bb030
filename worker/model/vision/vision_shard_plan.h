// Which part of the vision tower a rank owns: heads of attention, columns of the MLP's inner width, columns
// of the merger's inner width. Everything else (patch embedding, norms, biases behind a sum over ranks) is
// replicated.
//
//   attn.qkv                   output rows of the own heads, in q, k and v
//   attn.proj                  input columns of the own heads; partial sums are added over the ranks
//   mlp.gate_proj, up_proj     output rows
//   mlp.down_proj              input columns; partial sums are added
//   merger.mlp.0               output rows
//   merger.mlp.2               input columns; partial sums are added
// Counts that do not divide give uneven shares; a rank beyond the number of heads owns none and contributes
// zeros.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "common/partition.h"
#include "common/vision_config.h"

namespace lancet {

struct VisionShardPlan {
  int rank = 0;
  int world_size = 1;
  int64_t head_dim = 0;
  Range heads;
  Range inner;   // columns of the MLP; begins at a multiple of 16
  Range merged;  // columns of the merger; likewise

  int64_t head_cols() const { return heads.size() * head_dim; }
};

// InvalidArgument for a rank outside the world.
absl::StatusOr<VisionShardPlan> MakeVisionShardPlan(const VisionConfig& config, int rank, int world_size);

}  // namespace lancet
