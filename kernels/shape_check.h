// Checks of the matrices that an op is given, and the message that names them.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/tensor_view.h"

namespace lancet {

// InvalidArgument unless `m` is [rows, cols] with a stride that holds a row.
template <typename T>
absl::Status CheckMatrix(absl::string_view op, absl::string_view name, const MatrixView<T>& m, int64_t rows,
                         int64_t cols) {
  if (m.rows != rows || m.cols != cols || m.stride < m.cols) {
    return absl::InvalidArgumentError(absl::StrCat(op, ": ", name, " is [", m.rows, ", ", m.cols,
                                                   "] with stride ", m.stride, "; expected [", rows, ", ",
                                                   cols, "] and a stride of at least ", cols));
  }
  if (m.data == nullptr && rows > 0 && cols > 0) {
    return absl::InvalidArgumentError(absl::StrCat(op, ": ", name, " has no data"));
  }
  return absl::OkStatus();
}

// InvalidArgument unless a vector has `expected` elements.
inline absl::Status CheckLength(absl::string_view op, absl::string_view name, size_t size, int64_t expected) {
  if (static_cast<int64_t>(size) == expected) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(op, ": ", name, " has ", size, " elements; expected ", expected));
}

}  // namespace lancet
