#include "coordinator/request/resize_presets.h"

#include <cmath>
#include <cstdlib>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/quote.h"

namespace lancet {
namespace {

struct NamedPreset {
  absl::string_view name;
  ResizePreset preset;
};

constexpr NamedPreset kPresets[] = {
    {"image_256res", {256, 224}}, {"image_512res", {512, 448}}, {"image_768res", {768, 672}},
    {"video_192p", {256, 224}},   {"video_360p", {480, 476}},   {"video_480p", {640, 616}},
};

constexpr int32_t kBucketStep = 16;  // pixels
constexpr std::array<double, kBucketCount> kRatios = {21.0 / 9, 16.0 / 9, 4.0 / 3, 1.0, 3.0 / 4, 9.0 / 16};

// The multiple of 16 nearest to x; nearbyint rounds half to even.
int32_t RoundToStep(double x) { return static_cast<int32_t>(std::nearbyint(x / kBucketStep)) * kBucketStep; }

Bucket BucketOf(double ratio, double area) {
  Bucket by_width;
  by_width.width = RoundToStep(std::sqrt(area * ratio));
  by_width.height = RoundToStep(by_width.width / ratio);
  Bucket by_height;
  by_height.height = RoundToStep(std::sqrt(area / ratio));
  by_height.width = RoundToStep(by_height.height * ratio);

  const double width_error = std::abs(by_width.ratio() - ratio);
  const double height_error = std::abs(by_height.ratio() - ratio);
  if (width_error != height_error) return width_error < height_error ? by_width : by_height;
  const auto area_error = [area](const Bucket& b) { return std::abs(double{1} * b.width * b.height - area); };
  return area_error(by_width) <= area_error(by_height) ? by_width : by_height;
}

}  // namespace

absl::StatusOr<ResizePreset> FindResizePreset(absl::string_view name) {
  std::string known;
  for (const NamedPreset& entry : kPresets) {
    if (entry.name == name) return entry.preset;
    absl::StrAppend(&known, known.empty() ? "" : ", ", entry.name);
  }
  return absl::InvalidArgumentError(absl::StrCat("no resize preset ", Quote(name), "; there are ", known));
}

absl::StatusOr<ResizePreset> ResizePresetOfSide(int32_t side) {
  if (side < kMinPresetSide || side > kMaxPresetSide || side % kBucketStep != 0) {
    return absl::InvalidArgumentError(absl::StrCat("side of ", side, " pixels; it must be a multiple of ",
                                                   kBucketStep, " from ", kMinPresetSide, " to ",
                                                   kMaxPresetSide));
  }
  return ResizePreset{side, side / 8 * 7};
}

std::array<Bucket, kBucketCount> BucketsOfSide(int32_t side) {
  std::array<Bucket, kBucketCount> buckets;
  const double area = double{1} * side * side;
  for (size_t i = 0; i < kBucketCount; ++i) buckets[i] = BucketOf(kRatios[i], area);
  return buckets;
}

Bucket NearestBucket(const std::array<Bucket, kBucketCount>& buckets, int32_t width, int32_t height) {
  const double ratio = static_cast<double>(width) / height;
  Bucket nearest = buckets[0];
  for (const Bucket& bucket : buckets) {
    if (std::abs(ratio - bucket.ratio()) < std::abs(ratio - nearest.ratio())) nearest = bucket;
  }
  return nearest;
}

}  // namespace lancet
