// Reads a rank's shard of the trunk from a checkpoint: slices of the memory map, no more than the rank owns.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/bf16.h"
#include "common/state_dict.h"
#include "kernels/nvfp4.h"
#include "worker/loader/shard_plan.h"

namespace lancet {

// A Linear of the trunk, or a part of one, as the checkpoint holds it: quantised, or kept in bf16. Owns
// nothing.
struct LinearView {
  bool is_bf16 = false;
  Nvfp4MatrixView nvfp4;        // unless is_bf16
  ConstMatrixView<bf16> dense;  // if is_bf16

  int64_t rows() const { return is_bf16 ? dense.rows : nvfp4.rows; }
  int64_t cols() const { return is_bf16 ? dense.cols : nvfp4.cols; }
};

// The rank's part of the Linear `base` (full name without ".qweight" or ".weight"), whose sharding rule is
// `linear` and whose full extent is [rows, cols]. The view points into the checkpoint.
absl::StatusOr<LinearView> LoadLinearSlice(const StateDict& dict, absl::string_view base,
                                           absl::string_view linear, int64_t rows, int64_t cols,
                                           const ShardPlan& plan);
// Says that the Linear has been copied.
void ReleaseLinear(const StateDict& dict, absl::string_view base);

// Linears with the same input are multiplied together. One of them in bf16 brings the others with it: their
// product is then that of StackBf16.
bool AnyBf16(absl::Span<const LinearView> parts);
// The quantised parts; empty if AnyBf16.
std::vector<Nvfp4MatrixView> Nvfp4Parts(absl::Span<const LinearView> parts);
// All parts stacked by rows, in bf16: weights of quantised ones are code times scale, rounded, as in w4a16.
// `turn`: rows of a part before the next part's; 0: all of them.
std::vector<bf16> StackBf16(absl::Span<const LinearView> parts, int64_t turn = 0);

// A bf16 vector of `size` elements, of which [range.begin, range.end) is kept.
absl::StatusOr<std::vector<bf16>> LoadVector(const StateDict& dict, const std::string& name, int64_t size,
                                             Range range);
absl::StatusOr<std::vector<bf16>> LoadVector(const StateDict& dict, const std::string& name, int64_t size);

// A whole bf16 matrix; the view points into the checkpoint.
absl::StatusOr<ConstMatrixView<bf16>> LoadMatrix(const StateDict& dict, const std::string& name, int64_t rows,
                                                 int64_t cols);

}  // namespace lancet
