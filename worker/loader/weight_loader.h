// Reads a rank's shard of the trunk from a checkpoint: slices of the memory map, no more than the rank owns.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/bf16.h"
#include "common/state_dict.h"
#include "kernels/nvfp4.h"
#include "worker/loader/shard_plan.h"

namespace lancet {

// The rank's part of the NVFP4 Linear `base` (full name without ".qweight"), whose sharding rule is `linear`
// and whose full extent is [rows, cols]. The view points into the checkpoint.
absl::StatusOr<Nvfp4MatrixView> LoadLinearSlice(const StateDict& dict, absl::string_view base,
                                                absl::string_view linear, int64_t rows, int64_t cols,
                                                const ShardPlan& plan);

// A bf16 vector of `size` elements, of which [range.begin, range.end) is kept.
absl::StatusOr<std::vector<bf16>> LoadVector(const StateDict& dict, const std::string& name, int64_t size,
                                             Range range);
absl::StatusOr<std::vector<bf16>> LoadVector(const StateDict& dict, const std::string& name, int64_t size);

// A whole bf16 matrix; the view points into the checkpoint.
absl::StatusOr<ConstMatrixView<bf16>> LoadMatrix(const StateDict& dict, const std::string& name, int64_t rows,
                                                 int64_t cols);

}  // namespace lancet
