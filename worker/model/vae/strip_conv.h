// A 3x3 convolution (stride 1, padded by one pixel) whose input is made strip by strip just before it is
// read: normalised, activated or enlarged maps never exist as a whole, and what was just written is read from
// cache.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "common/status_macros.h"
#include "kernels/conv.h"
#include "kernels/feature_map.h"

namespace lancet {

// One caller at a time.
class StripConv {
 public:
  // Enough rows that a strip's products outweigh reading the weights again (19 MB for 1024 channels, or twice
  // that: kernels/conv.h), few enough to stay in the outer caches.
  static constexpr int64_t kStripBytes = 4 << 20;

  // Writes rows [row_begin, row_begin + rows.height) of the convolution's input.
  using Fill = absl::FunctionRef<absl::Status(int64_t row_begin, MapView<bf16> rows)>;

  StripConv() : strip_(kStripBytes / sizeof(bf16)) {}

  // y = conv(input) + bias, or y += with `accumulate`; input and y are y.height x y.width. `fill` is called
  // for every row once, top down, and may read y's memory only if it is not y's.
  absl::Status Run(Conv2d& conv, Fill fill, bool accumulate, MapView<bf16> y) {
    const int64_t channels = conv.shape().in_channels;
    const int64_t row = y.width * channels;
    const int64_t fitting = std::max<int64_t>(1, kStripBytes / static_cast<int64_t>(sizeof(bf16)) / row - 2);
    const int64_t strips = (y.height + fitting - 1) / fitting;
    const int64_t height = (y.height + strips - 1) / strips;  // evened out
    if (static_cast<int64_t>(strip_.size()) < (height + 2) * row) strip_.resize((height + 2) * row);

    int64_t previous = 0;  // output rows of the strip before
    for (int64_t begin = 0; begin < y.height; begin += previous) {
      const int64_t count = std::min(height, y.height - begin);
      // The strip holds input rows begin - 1 .. begin + count; the first two are the last two of the one
      // before.
      const MapView<bf16> strip(strip_.data(), count + 2, y.width, channels);
      int64_t ready = 1;
      if (begin == 0) {
        std::fill_n(strip.data, row, bf16{});
      } else {
        std::memmove(strip.data, strip.row(previous), 2 * row * sizeof(bf16));
        ready = 2;
      }
      const bool last = begin + count == y.height;
      const int64_t fresh = count + 2 - ready - (last ? 1 : 0);
      if (fresh > 0) {
        LANCET_RETURN_IF_ERROR(fill(begin - 1 + ready, strip.Rows(ready, fresh)));
      }
      if (last) std::fill_n(strip.row(count + 1), row, bf16{});
      LANCET_RETURN_IF_ERROR(conv.Forward(strip, ConvPadding{0, 1, 0, 1}, accumulate, y.Rows(begin, count)));
      previous = count;
    }
    return absl::OkStatus();
  }

 private:
  std::vector<bf16> strip_;
};

}  // namespace lancet
