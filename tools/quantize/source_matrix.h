// A tensor of an unquantised checkpoint as the quantiser takes it: rounded to bf16 first, whatever the file
// has.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/bf16.h"
#include "common/state_dict.h"
#include "common/tensor_view.h"

namespace lancet {

// Whether the element type is one that weights come in: F32, BF16 or F16.
bool IsSourceType(DType dtype);

// Values [begin, begin + to.size()) of a tensor of such a type, rounded to bf16.
void ReadRounded(const TensorView& tensor, int64_t begin, absl::Span<float> to);
void ReadRounded(const TensorView& tensor, int64_t begin, absl::Span<bf16> to);

// A weight [rows, cols]. The view points into the checkpoint.
class SourceMatrix {
 public:
  // NotFound, or InvalidArgument naming the tensor, for another shape or element type.
  static absl::StatusOr<SourceMatrix> Open(const StateDict& source, const std::string& name, int64_t rows,
                                           int64_t cols);
  int64_t rows() const { return view_.shape[0]; }
  int64_t cols() const { return view_.shape[1]; }
  void ReadRow(int64_t row, absl::Span<float> to) const { ReadRounded(view_, row * cols(), to); }

 private:
  TensorView view_;
};

// A whole vector of `size` values.
absl::StatusOr<std::vector<float>> ReadSourceVector(const StateDict& source, const std::string& name,
                                                    int64_t size);

// Whether all are finite numbers.
bool AllFinite(absl::Span<const float> values);
bool AllFinite(absl::Span<const bf16> values);
// What to say of a tensor with others.
absl::Status NotFinite(const StateDict& source, absl::string_view name);

}  // namespace lancet
