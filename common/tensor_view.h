// Views of tensors: element type, extents and a pointer. Row-major, outermost extent first. A view owns
// nothing and is passed by value; whoever made it says how long the memory lives.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>

#include "absl/container/inlined_vector.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/bf16.h"
#include "common/dtype.h"

namespace lancet {

// Extents, outermost first. Empty means a scalar.
using Shape = absl::InlinedVector<int64_t, 5>;

inline int64_t NumElements(const Shape& shape) {
  int64_t n = 1;
  for (const int64_t extent : shape) n *= extent;
  return n;
}

// "[2, 3]".
inline std::string ShapeString(const Shape& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

template <typename T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::kF32;
};
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::kF64;
};
template <>
struct DTypeOf<bf16> {
  static constexpr DType value = DType::kBf16;
};
template <>
struct DTypeOf<uint8_t> {
  static constexpr DType value = DType::kU8;
};
template <>
struct DTypeOf<int32_t> {
  static constexpr DType value = DType::kI32;
};
template <>
struct DTypeOf<int64_t> {
  static constexpr DType value = DType::kI64;
};

// A dense tensor of any element type that somebody else owns: what a checkpoint file hands out.
struct TensorView {
  DType dtype = DType::kU8;
  Shape shape;
  const std::byte* data = nullptr;

  int64_t num_elements() const { return NumElements(shape); }
  int64_t num_bytes() const { return num_elements() * static_cast<int64_t>(DTypeSize(dtype)); }
  // The caller has checked dtype.
  template <typename T>
  const T* as() const {
    return reinterpret_cast<const T*>(data);
  }
};

// A matrix [rows, cols] whose rows lie `stride` elements apart (stride >= cols): what kernels read and write.
// A sub-range of columns or rows of a matrix is a matrix again, so heads and fused projections need no
// copies.
template <typename T>
struct MatrixView {
  T* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;

  MatrixView() = default;
  MatrixView(T* d, int64_t r, int64_t c) : data(d), rows(r), cols(c), stride(c) {}
  MatrixView(T* d, int64_t r, int64_t c, int64_t s) : data(d), rows(r), cols(c), stride(s) {}
  // Mutable to const, which is meant to happen by itself.
  template <typename U, typename = std::enable_if_t<!std::is_same_v<U, T> && std::is_convertible_v<U*, T*>>>
  MatrixView(MatrixView<U> m)  // NOLINT(google-explicit-constructor)
      : data(m.data), rows(m.rows), cols(m.cols), stride(m.stride) {}

  T* row(int64_t r) const { return data + r * stride; }
  MatrixView Rows(int64_t begin, int64_t count) const { return {data + begin * stride, count, cols, stride}; }
  MatrixView Cols(int64_t begin, int64_t count) const { return {data + begin, rows, count, stride}; }
};

template <typename T>
using ConstMatrixView = MatrixView<const T>;

}  // namespace lancet
