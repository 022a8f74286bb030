#include "tools/eval/picture_metrics.h"

#include <array>
#include <cmath>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace lancet {
namespace {

constexpr int kWindow = 11;
constexpr double kWindowDeviation = 1.5;
constexpr double kC1 = (0.01 * 255) * (0.01 * 255);
constexpr double kC2 = (0.03 * 255) * (0.03 * 255);

absl::Status CheckSizes(const RgbImage& a, const RgbImage& b, int least) {
  const auto complete = [](const RgbImage& image) {
    return image.pixels.size() ==
           size_t{3} * static_cast<size_t>(image.width) * static_cast<size_t>(image.height);
  };
  if (a.width == b.width && a.height == b.height && a.width >= least && a.height >= least && complete(a) &&
      complete(b)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("pictures of ", a.width, " x ", a.height, " and ", b.width,
                                                 " x ", b.height, " cannot be compared"));
}

struct Plane {
  int width = 0;
  int height = 0;
  std::vector<double> values;

  double at(int y, int x) const { return values[static_cast<size_t>(y) * width + x]; }
};

Plane Brightness(const RgbImage& image) {
  Plane plane{image.width, image.height, {}};
  plane.values.reserve(image.pixels.size() / 3);
  for (size_t i = 0; i < image.pixels.size(); i += 3) {
    plane.values.push_back(0.299 * image.pixels[i] + 0.587 * image.pixels[i + 1] +
                           0.114 * image.pixels[i + 2]);
  }
  return plane;
}

Plane Times(const Plane& a, const Plane& b) {
  Plane product = a;
  for (size_t i = 0; i < product.values.size(); ++i) product.values[i] *= b.values[i];
  return product;
}

// Means under the window, where it fits: columns first, then rows.
Plane Blur(const Plane& plane) {
  std::array<double, kWindow> weights{};
  double sum = 0;
  for (int i = 0; i < kWindow; ++i) {
    const double off = i - kWindow / 2;
    weights[i] = std::exp(-off * off / (2 * kWindowDeviation * kWindowDeviation));
    sum += weights[i];
  }
  for (double& weight : weights) weight /= sum;
  Plane narrow{plane.width - kWindow + 1, plane.height, {}};
  for (int y = 0; y < narrow.height; ++y) {
    for (int x = 0; x < narrow.width; ++x) {
      double mean = 0;
      for (int i = 0; i < kWindow; ++i) mean += weights[i] * plane.at(y, x + i);
      narrow.values.push_back(mean);
    }
  }
  Plane blurred{narrow.width, narrow.height - kWindow + 1, {}};
  for (int y = 0; y < blurred.height; ++y) {
    for (int x = 0; x < blurred.width; ++x) {
      double mean = 0;
      for (int i = 0; i < kWindow; ++i) mean += weights[i] * narrow.at(y + i, x);
      blurred.values.push_back(mean);
    }
  }
  return blurred;
}

}  // namespace

absl::StatusOr<double> Psnr(const RgbImage& a, const RgbImage& b) {
  LANCET_RETURN_IF_ERROR(CheckSizes(a, b, 1));
  double sum = 0;
  for (size_t i = 0; i < a.pixels.size(); ++i) {
    const double off = static_cast<double>(a.pixels[i]) - b.pixels[i];
    sum += off * off;
  }
  if (sum == 0) return kEqualPsnr;
  return 10 * std::log10(255.0 * 255.0 * static_cast<double>(a.pixels.size()) / sum);
}

absl::StatusOr<double> Ssim(const RgbImage& a, const RgbImage& b) {
  LANCET_RETURN_IF_ERROR(CheckSizes(a, b, kWindow));
  const Plane x = Brightness(a);
  const Plane y = Brightness(b);
  const Plane mean_x = Blur(x);
  const Plane mean_y = Blur(y);
  const Plane xx = Blur(Times(x, x));
  const Plane yy = Blur(Times(y, y));
  const Plane xy = Blur(Times(x, y));
  double sum = 0;
  for (size_t i = 0; i < xx.values.size(); ++i) {
    const double mx = mean_x.values[i];
    const double my = mean_y.values[i];
    const double variances = xx.values[i] - mx * mx + yy.values[i] - my * my;
    const double covariance = xy.values[i] - mx * my;
    sum += (2 * mx * my + kC1) * (2 * covariance + kC2) / ((mx * mx + my * my + kC1) * (variances + kC2));
  }
  return sum / static_cast<double>(xx.values.size());
}

absl::StatusOr<double> RelativeError(const std::vector<bf16>& got, const std::vector<bf16>& expected) {
  if (got.size() != expected.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("latents of ", got.size(), " values cannot be compared with ", expected.size()));
  }
  double off = 0;
  double norm = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double e = ToFloat(expected[i]);
    off += (ToFloat(got[i]) - e) * (ToFloat(got[i]) - e);
    norm += e * e;
  }
  if (norm == 0) return absl::InvalidArgumentError("latents to compare with are zero");
  return std::sqrt(off / norm);
}

}  // namespace lancet
