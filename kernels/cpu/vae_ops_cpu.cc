#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/vae_rows.h"
#include "kernels/vae_ops.h"

namespace lancet {
namespace {

// Elements that make a share worth handing to a thread.
constexpr int64_t kMinElements = 16384;

absl::Status ShapeError(absl::string_view op, ConstMapView<bf16> x, ConstMapView<bf16> y) {
  return absl::InvalidArgumentError(
      absl::StrCat(op, ": maps of ", x.ShapeString(), " and ", y.ShapeString(), " do not fit"));
}

int64_t MinRows(int64_t row_elements) { return std::max<int64_t>(1, kMinElements / row_elements); }

}  // namespace

absl::Status ChannelNorm(const KernelContext& ctx, ConstMapView<bf16> x, absl::Span<const float> gamma,
                         NormActivation activation, MapView<bf16> y) {
  if (x.height != y.height || x.width != y.width || x.channels != y.channels || x.channels < 1) {
    return ShapeError("ChannelNorm", x, y);
  }
  if (static_cast<int64_t>(gamma.size()) != x.channels) {
    return absl::InvalidArgumentError(
        absl::StrCat("ChannelNorm: ", gamma.size(), " factors for ", x.channels, " channels"));
  }
  const int64_t channels = x.channels;
  const float root = std::sqrt(static_cast<float>(channels));
  std::vector<float> scaled(gamma.begin(), gamma.end());
  for (float& g : scaled) g *= root;
  const auto norm = VaeRowsFor(ctx.isa()).channel_norm;
  ctx.pool().ParallelFor(x.pixels(), MinRows(channels), [&](int64_t begin, int64_t end, int) {
    norm(x.data + begin * channels, end - begin, channels, scaled.data(), activation == NormActivation::kSilu,
         y.data + begin * channels);
  });
  return absl::OkStatus();
}

absl::Status UpsampleRows(const KernelContext& ctx, ConstMapView<bf16> x, int64_t row_begin,
                          MapView<bf16> y) {
  if (y.channels != x.channels || y.width != 2 * x.width || row_begin < 0 ||
      row_begin + y.height > 2 * x.height) {
    return ShapeError(absl::StrCat("UpsampleRows from row ", row_begin), x, y);
  }
  const size_t pixel_bytes = x.channels * sizeof(bf16);
  ctx.pool().ParallelFor(y.height, MinRows(y.row_elements()), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      const bf16* from = x.row((row_begin + r) / 2);
      bf16* to = y.row(r);
      for (int64_t j = 0; j < x.width; ++j, from += x.channels, to += 2 * x.channels) {
        std::memcpy(to, from, pixel_bytes);
        std::memcpy(to + x.channels, from, pixel_bytes);
      }
    }
  });
  return absl::OkStatus();
}

absl::Status DupUpAdd(const KernelContext& ctx, ConstMapView<bf16> x, int64_t frame_factor, MapView<bf16> y) {
  const int64_t copies = 4 * frame_factor * y.channels;  // r * in
  if (y.height != 2 * x.height || y.width != 2 * x.width || x.channels < 1 || copies % x.channels != 0 ||
      copies / x.channels < 1 || (frame_factor != 1 && frame_factor != 2)) {
    return ShapeError(absl::StrCat("DupUpAdd with temporal factor ", frame_factor), x, y);
  }
  const int64_t r = copies / x.channels;
  // source[2 a + b][o]: the channel of x that feeds channel o at row offset a, column offset b.
  std::vector<int32_t> source[4];
  bool identity[4];
  for (int64_t ab = 0; ab < 4; ++ab) {
    source[ab].resize(y.channels);
    identity[ab] = true;
    for (int64_t o = 0; o < y.channels; ++o) {
      const int64_t c = (4 * (o * frame_factor + frame_factor - 1) + ab) / r;
      source[ab][o] = static_cast<int32_t>(c);
      identity[ab] = identity[ab] && c == o;
    }
  }
  const auto add = VaeRowsFor(ctx.isa()).add;
  ctx.pool().ParallelFor(y.height, MinRows(y.row_elements()), [&](int64_t begin, int64_t end, int) {
    std::vector<bf16> gathered(y.channels);
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t j = 0; j < y.width; ++j) {
        const int64_t ab = 2 * (i % 2) + j % 2;
        const bf16* from = x.row(i / 2) + (j / 2) * x.channels;
        bf16* to = y.row(i) + j * y.channels;
        if (!identity[ab]) {
          const int32_t* channel = source[ab].data();
          for (int64_t o = 0; o < y.channels; ++o) gathered[o] = from[channel[o]];
          from = gathered.data();
        }
        add(from, y.channels, to);
      }
    }
  });
  return absl::OkStatus();
}

absl::Status AvgDown(const KernelContext& ctx, ConstMapView<bf16> x, int64_t frame_factor, MapView<bf16> y) {
  const int64_t values = 4 * frame_factor * x.channels;  // g * out
  if (x.height != 2 * y.height || x.width != 2 * y.width || y.channels < 1 || values % y.channels != 0 ||
      values / y.channels < 1 || (frame_factor != 1 && frame_factor != 2)) {
    return ShapeError(absl::StrCat("AvgDown with temporal factor ", frame_factor), x, y);
  }
  const int64_t g = values / y.channels;
  // Where the terms of each mean lie, from the upper left of the four pixels; terms of zero frames are left
  // out.
  std::vector<int64_t> offsets;
  std::vector<int64_t> ends;
  for (int64_t o = 0; o < y.channels; ++o) {
    for (int64_t k = o * g; k < (o + 1) * g; ++k) {
      if (k / 4 % frame_factor != frame_factor - 1) continue;
      offsets.push_back(k / 2 % 2 * x.row_elements() + k % 2 * x.channels + k / (4 * frame_factor));
    }
    ends.push_back(static_cast<int64_t>(offsets.size()));
  }
  const float share = 1.0f / static_cast<float>(g);
  ctx.pool().ParallelFor(y.height, MinRows(y.row_elements()), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t j = 0; j < y.width; ++j) {
        const bf16* from = x.row(2 * i) + 2 * j * x.channels;
        bf16* to = y.row(i) + j * y.channels;
        int64_t term = 0;
        for (int64_t o = 0; o < y.channels; ++o) {
          float sum = 0.0f;
          for (; term < ends[o]; ++term) sum += ToFloat(from[offsets[term]]);
          to[o] = ToBf16(sum * share);
        }
      }
    }
  });
  return absl::OkStatus();
}

absl::Status AddMap(const KernelContext& ctx, ConstMapView<bf16> x, MapView<bf16> y) {
  if (x.height != y.height || x.width != y.width || x.channels != y.channels) {
    return ShapeError("AddMap", x, y);
  }
  const auto add = VaeRowsFor(ctx.isa()).add;
  ctx.pool().ParallelFor(y.pixels(), MinRows(y.channels), [&](int64_t begin, int64_t end, int) {
    add(x.data + begin * x.channels, (end - begin) * x.channels, y.data + begin * x.channels);
  });
  return absl::OkStatus();
}

absl::Status Patchify(const KernelContext& ctx, absl::Span<const float> planes, MapView<bf16> y) {
  const int64_t height = 2 * y.height;
  const int64_t width = 2 * y.width;
  if (y.channels != 12 || static_cast<int64_t>(planes.size()) != 3 * height * width) {
    return absl::InvalidArgumentError(
        absl::StrCat("Patchify: ", planes.size(), " values into a map of ", y.ShapeString()));
  }
  ctx.pool().ParallelFor(y.height, MinRows(y.row_elements()), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      bf16* to = y.row(i);
      for (int64_t j = 0; j < y.width; ++j, to += 12) {
        for (int64_t k = 0; k < 12; ++k) {
          const int64_t dx = k / 2 % 2;
          const int64_t dy = k % 2;
          to[k] = ToBf16(planes[(k / 4 * height + 2 * i + dy) * width + 2 * j + dx]);
        }
      }
    }
  });
  return absl::OkStatus();
}

absl::Status Unpatchify(const KernelContext& ctx, ConstMapView<bf16> x, absl::Span<float> planes) {
  const int64_t height = 2 * x.height;
  const int64_t width = 2 * x.width;
  if (x.channels != 12 || static_cast<int64_t>(planes.size()) != 3 * height * width) {
    return absl::InvalidArgumentError(
        absl::StrCat("Unpatchify: a map of ", x.ShapeString(), " into ", planes.size(), " values"));
  }
  ctx.pool().ParallelFor(x.height, MinRows(x.row_elements()), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const bf16* from = x.row(i);
      for (int64_t j = 0; j < x.width; ++j, from += 12) {
        for (int64_t k = 0; k < 12; ++k) {
          const int64_t c = k / 4;
          const int64_t dx = k / 2 % 2;
          const int64_t dy = k % 2;
          planes[(c * height + 2 * i + dy) * width + 2 * j + dx] = ToFloat(from[k]);
        }
      }
    }
  });
  return absl::OkStatus();
}

absl::StatusOr<RgbImage> PixelsToImage(absl::Span<const float> planes, int64_t height, int64_t width) {
  if (height < 1 || width < 1 || static_cast<int64_t>(planes.size()) != 3 * height * width) {
    return absl::InvalidArgumentError(
        absl::StrCat("PixelsToImage: ", planes.size(), " values for [3, ", height, ", ", width, "]"));
  }
  RgbImage image;
  image.height = static_cast<int32_t>(height);
  image.width = static_cast<int32_t>(width);
  image.pixels.resize(planes.size());
  const int64_t count = height * width;
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t c = 0; c < 3; ++c) {
      const float x = planes[c * count + i];
      const float clamped = x != x ? 0.0f : std::fmin(std::fmax(x, -1.0f), 1.0f);
      // Halves go to the even neighbour, as the default rounding mode has it.
      image.pixels[3 * i + c] = static_cast<uint8_t>(std::nearbyint((clamped * 0.5f + 0.5f) * 255.0f));
    }
  }
  return image;
}

absl::StatusOr<std::vector<float>> ImageToPixels(const RgbImage& image) {
  const int64_t count = int64_t{image.width} * image.height;
  if (image.width < 1 || image.height < 1 || static_cast<int64_t>(image.pixels.size()) != 3 * count) {
    return absl::InvalidArgumentError(absl::StrCat("ImageToPixels: ", image.pixels.size(), " values for ",
                                                   image.width, " x ", image.height, " pixels"));
  }
  std::vector<float> planes(3 * count);
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t c = 0; c < 3; ++c) {
      planes[c * count + i] = (static_cast<float>(image.pixels[3 * i + c]) / 255.0f - 0.5f) / 0.5f;
    }
  }
  return planes;
}

}  // namespace lancet
