// Views of feature maps: what convolutions and the ops around them read and write.
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "common/bf16.h"
#include "common/tensor_view.h"

namespace lancet {

// A dense map [height, width, channels] ("NHWC" without N) that somebody else owns.
template <typename T>
struct MapView {
  T* data = nullptr;
  int64_t height = 0;
  int64_t width = 0;
  int64_t channels = 0;

  MapView() = default;
  MapView(T* d, int64_t h, int64_t w, int64_t c) : data(d), height(h), width(w), channels(c) {}
  // Mutable to const.
  template <typename U, typename = std::enable_if_t<!std::is_same_v<U, T> && std::is_convertible_v<U*, T*>>>
  MapView(MapView<U> m)  // NOLINT(google-explicit-constructor)
      : data(m.data), height(m.height), width(m.width), channels(m.channels) {}

  int64_t row_elements() const { return width * channels; }
  int64_t pixels() const { return height * width; }
  int64_t elements() const { return height * width * channels; }
  T* row(int64_t r) const { return data + r * row_elements(); }
  MapView Rows(int64_t begin, int64_t count) const { return {row(begin), count, width, channels}; }
  // The same memory as one row per pixel.
  MatrixView<T> matrix() const { return {data, pixels(), channels}; }
  // "[16, 16, 128]".
  std::string ShapeString() const { return absl::StrCat("[", height, ", ", width, ", ", channels, "]"); }
};

template <typename T>
using ConstMapView = MapView<const T>;

}  // namespace lancet
