#include "coordinator/request/resample.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace lancet {
namespace {

constexpr int kPrecisionBits = 22;
constexpr int32_t kHalf = 1 << (kPrecisionBits - 1);
constexpr double kCubicSupport = 2.0;
constexpr int32_t kMaxSide = 16384;

double Cubic(double x) {
  const double u = std::abs(x);
  if (u < 1.0) return (1.5 * u - 2.5) * u * u + 1.0;
  if (u < 2.0) return -0.5 * (((u - 5.0) * u + 8.0) * u - 4.0);
  return 0.0;
}

// What one output sample takes: weights[k] of input first + k, `count` of them.
struct Taps {
  int32_t first = 0;
  int32_t count = 0;
  const int32_t* weights = nullptr;
};

struct AxisTaps {
  std::vector<int32_t> weights;
  std::vector<Taps> taps;  // one per output sample; point into `weights`
};

AxisTaps MakeTaps(int32_t in, int32_t out) {
  const double scale = static_cast<double>(in) / out;
  const double filter_scale = std::max(scale, 1.0);
  const double support = kCubicSupport * filter_scale;
  const double inverse = 1.0 / filter_scale;
  const auto most = static_cast<size_t>(std::ceil(support)) * 2 + 1;
  AxisTaps axis;
  axis.weights.resize(static_cast<size_t>(out) * most);
  axis.taps.resize(static_cast<size_t>(out));
  std::vector<double> raw(most);
  for (int32_t i = 0; i < out; ++i) {
    const double centre = (i + 0.5) * scale;
    const int32_t first = std::max(static_cast<int32_t>(std::trunc(centre - support + 0.5)), 0);
    const int32_t count = std::min(static_cast<int32_t>(std::trunc(centre + support + 0.5)), in) - first;
    double sum = 0;
    for (int32_t k = 0; k < count; ++k) {
      raw[static_cast<size_t>(k)] = Cubic((k + first - centre + 0.5) * inverse);
      sum += raw[static_cast<size_t>(k)];
    }
    int32_t* weights = axis.weights.data() + static_cast<size_t>(i) * most;
    for (int32_t k = 0; k < count; ++k) {
      double weight = raw[static_cast<size_t>(k)];
      if (sum != 0.0) weight /= sum;
      const double fixed = weight * (1 << kPrecisionBits);
      weights[k] = static_cast<int32_t>(fixed < 0 ? fixed - 0.5 : fixed + 0.5);
    }
    axis.taps[static_cast<size_t>(i)] = {first, count, weights};
  }
  return axis;
}

uint8_t Clip(int32_t sum) { return static_cast<uint8_t>(std::clamp(sum >> kPrecisionBits, 0, 255)); }

// Rows of `stride` bytes, rect.height of them, starting at rect's corner, to rect.height rows of taps.size()
// pixels.
std::vector<uint8_t> ResampleColumns(const uint8_t* in, size_t stride, size_t height, const AxisTaps& axis) {
  std::vector<uint8_t> narrow(height * axis.taps.size() * 3);
  uint8_t* out = narrow.data();
  for (size_t y = 0; y < height; ++y) {
    const uint8_t* row = in + y * stride;
    for (const Taps& taps : axis.taps) {
      const uint8_t* pixel = row + 3 * static_cast<ptrdiff_t>(taps.first);
      int32_t red = kHalf;
      int32_t green = kHalf;
      int32_t blue = kHalf;
      for (int32_t k = 0; k < taps.count; ++k) {
        red += taps.weights[k] * pixel[0];
        green += taps.weights[k] * pixel[1];
        blue += taps.weights[k] * pixel[2];
        pixel += 3;
      }
      *out++ = Clip(red);
      *out++ = Clip(green);
      *out++ = Clip(blue);
    }
  }
  return narrow;
}

// Rows of `stride` bytes, of which the first `row_bytes` count, to taps.size() rows of row_bytes.
std::vector<uint8_t> ResampleRows(const uint8_t* in, size_t stride, size_t row_bytes, const AxisTaps& axis) {
  std::vector<uint8_t> result(axis.taps.size() * row_bytes);
  std::vector<int32_t> sums(row_bytes);
  uint8_t* out = result.data();
  for (const Taps& taps : axis.taps) {
    std::fill(sums.begin(), sums.end(), kHalf);
    const uint8_t* row = in + static_cast<size_t>(taps.first) * stride;
    for (int32_t k = 0; k < taps.count; ++k) {
      const int32_t weight = taps.weights[k];
      for (size_t i = 0; i < row_bytes; ++i) sums[i] += weight * row[i];
      row += stride;
    }
    for (const int32_t sum : sums) *out++ = Clip(sum);
  }
  return result;
}

absl::Status CheckRect(const RgbImage& image, const CropRect& rect) {
  if (image.width < 1 || image.height < 1 ||
      image.pixels.size() !=
          size_t{3} * static_cast<size_t>(image.width) * static_cast<size_t>(image.height)) {
    return absl::InvalidArgumentError(absl::StrCat("picture of ", image.width, " x ", image.height, " has ",
                                                   image.pixels.size(), " bytes"));
  }
  if (rect.left < 0 || rect.top < 0 || rect.width < 1 || rect.height < 1 ||
      rect.left > image.width - rect.width || rect.top > image.height - rect.height) {
    return absl::InvalidArgumentError(absl::StrCat("rectangle of ", rect.width, " x ", rect.height, " at (",
                                                   rect.left, ", ", rect.top, ") of a picture of ",
                                                   image.width, " x ", image.height));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<RgbImage> CropAndResample(const RgbImage& image, const CropRect& rect, int32_t width,
                                         int32_t height) {
  if (width < 1 || height < 1 || width > kMaxSide || height > kMaxSide) {
    return absl::InvalidArgumentError(
        absl::StrCat("new size of ", width, " x ", height, " pixels; a side must be from 1 to ", kMaxSide));
  }
  LANCET_ASSIGN_OR_RETURN(RgbImage result, Crop(image, rect));
  if (width != rect.width) {
    result.pixels = ResampleColumns(result.pixels.data(), size_t{3} * static_cast<size_t>(rect.width),
                                    static_cast<size_t>(rect.height), MakeTaps(rect.width, width));
    result.width = width;
  }
  if (height != rect.height) {
    const size_t row_bytes = size_t{3} * static_cast<size_t>(width);
    result.pixels = ResampleRows(result.pixels.data(), row_bytes, row_bytes, MakeTaps(rect.height, height));
    result.height = height;
  }
  return result;
}

absl::StatusOr<RgbImage> Crop(const RgbImage& image, const CropRect& rect) {
  LANCET_RETURN_IF_ERROR(CheckRect(image, rect));
  if (rect.width == image.width && rect.height == image.height) return image;
  RgbImage result{rect.width, rect.height, {}};
  const size_t row_bytes = size_t{3} * static_cast<size_t>(rect.width);
  result.pixels.reserve(row_bytes * static_cast<size_t>(rect.height));
  for (int32_t y = 0; y < rect.height; ++y) {
    const auto first =
        3 * (static_cast<ptrdiff_t>(rect.top + y) * image.width + static_cast<ptrdiff_t>(rect.left));
    const uint8_t* row = image.pixels.data() + first;
    result.pixels.insert(result.pixels.end(), row, row + row_bytes);
  }
  return result;
}

}  // namespace lancet
