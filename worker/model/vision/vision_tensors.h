// Tensors of the vision tower as the layers of any backend want them: bf16, whatever the file holds.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/bf16.h"
#include "common/state_dict.h"

namespace lancet {

// A tensor of `elements` F32, BF16 or F16 values, whatever its shape. NotFound or InvalidArgument names
// tensor, file, type, shape and what was expected.
absl::StatusOr<TensorView> FindVisionTensor(const StateDict& tower, const std::string& name,
                                            int64_t elements);

// Elements [begin, end) of a row-major tensor that was found, rounded to bf16 once and appended to `out`.
void AppendBf16(const TensorView& tensor, int64_t begin, int64_t end, std::vector<bf16>& out);

// All of a tensor; says of it that it has been used. Errors as above.
absl::StatusOr<std::vector<bf16>> ReadVisionTensor(const StateDict& tower, const std::string& name,
                                                   int64_t elements);

}  // namespace lancet
