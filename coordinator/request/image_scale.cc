#include "coordinator/request/image_scale.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace lancet {
namespace {

// What one output sample takes from a row or column: weight[i] of sample first + i. The weights sum to 1.
struct Taps {
  int32_t first = 0;
  std::vector<float> weights;
};

// Output sample i covers [i * step, (i + 1) * step) of the input; each input sample counts by its share of
// that.
std::vector<Taps> AreaTaps(int32_t in, int32_t out) {
  std::vector<Taps> taps(static_cast<size_t>(out));
  const double step = static_cast<double>(in) / out;
  for (int32_t i = 0; i < out; ++i) {
    const double begin = i * step;
    const double end = std::min<double>((i + 1) * step, in);
    Taps& t = taps[static_cast<size_t>(i)];
    t.first = static_cast<int32_t>(begin);
    for (int32_t j = t.first; j < in && j < end; ++j) {
      const double share = std::min<double>(end, j + 1) - std::max<double>(begin, j);
      t.weights.push_back(static_cast<float>(share / (end - begin)));
    }
  }
  return taps;
}

// Linear interpolation between sample centres; the edges are held.
std::vector<Taps> LinearTaps(int32_t in, int32_t out) {
  std::vector<Taps> taps(static_cast<size_t>(out));
  for (int32_t i = 0; i < out; ++i) {
    const double centre = std::clamp((i + 0.5) * in / out - 0.5, 0.0, in - 1.0);
    Taps& t = taps[static_cast<size_t>(i)];
    t.first = std::min(static_cast<int32_t>(centre), std::max(in - 2, 0));
    const auto right = static_cast<float>(centre - t.first);
    t.weights = in > 1 ? std::vector<float>{1.0f - right, right} : std::vector<float>{1.0f};
  }
  return taps;
}

// Columns first, then rows; the result between the passes stays f32, so each value is rounded once.
RgbImage Resample(const RgbImage& image, const std::vector<Taps>& columns, const std::vector<Taps>& rows) {
  const auto out_width = columns.size();
  const auto in_height = static_cast<size_t>(image.height);
  std::vector<float> narrow(in_height * out_width * 3);
  for (size_t y = 0; y < in_height; ++y) {
    const uint8_t* in = image.pixels.data() + y * static_cast<size_t>(image.width) * 3;
    float* out = narrow.data() + y * out_width * 3;
    for (const Taps& taps : columns) {
      const uint8_t* pixel = in + static_cast<size_t>(taps.first) * 3;
      for (const float weight : taps.weights) {
        for (size_t c = 0; c < 3; ++c) out[c] += weight * static_cast<float>(pixel[c]);
        pixel += 3;
      }
      out += 3;
    }
  }

  RgbImage result{static_cast<int32_t>(out_width), static_cast<int32_t>(rows.size()), {}};
  result.pixels.reserve(rows.size() * out_width * 3);
  std::vector<float> sum(out_width * 3);
  for (const Taps& taps : rows) {
    std::fill(sum.begin(), sum.end(), 0.0f);
    const float* in = narrow.data() + static_cast<size_t>(taps.first) * sum.size();
    for (const float weight : taps.weights) {
      for (size_t i = 0; i < sum.size(); ++i) sum[i] += weight * in[i];
      in += sum.size();
    }
    for (const float value : sum) {
      result.pixels.push_back(static_cast<uint8_t>(std::clamp(std::lround(value), 0L, 255L)));
    }
  }
  return result;
}

}  // namespace

absl::StatusOr<RgbImage> FitImage(const RgbImage& image, int32_t max_side) {
  if (max_side < 1) return absl::InvalidArgumentError(absl::StrCat("max_side: ", max_side, " is below 1"));
  if (image.width < 1 || image.height < 1 ||
      image.pixels.size() !=
          size_t{3} * static_cast<size_t>(image.width) * static_cast<size_t>(image.height)) {
    return absl::InvalidArgumentError(absl::StrCat("picture of ", image.width, " x ", image.height, " has ",
                                                   image.pixels.size(), " bytes"));
  }
  const int32_t longer = std::max(image.width, image.height);
  if (longer > max_side) {
    const auto scaled = [&](int32_t side) {
      return std::max(1, static_cast<int32_t>(std::lround(static_cast<double>(side) * max_side / longer)));
    };
    return Resample(image, AreaTaps(image.width, scaled(image.width)),
                    AreaTaps(image.height, scaled(image.height)));
  }
  const int32_t factor = max_side / longer;
  if (factor == 1) return image;
  return Resample(image, LinearTaps(image.width, image.width * factor),
                  LinearTaps(image.height, image.height * factor));
}

}  // namespace lancet
