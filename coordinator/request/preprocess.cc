#include "coordinator/request/preprocess.h"

#include <cmath>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace lancet {
namespace {

// Half to even.
int32_t Round(double x) { return static_cast<int32_t>(std::nearbyint(x)); }

// Training keeps the logarithm of the ratio in f32 and takes its exponential in f32.
double RatioOfTraining(double ratio) {
  const auto log_ratio = static_cast<float>(std::log(ratio));
  return static_cast<float>(std::exp(static_cast<double>(log_ratio)));
}

CropRect Centred(int32_t width, int32_t height, int32_t crop_width, int32_t crop_height) {
  return {(width - crop_width) / 2, (height - crop_height) / 2, crop_width, crop_height};
}

absl::StatusOr<RgbImage> CropToBucket(const RgbImage& image, int32_t side) {
  if (image.width < 1 || image.height < 1) {
    return absl::InvalidArgumentError(absl::StrCat("picture of ", image.width, " x ", image.height));
  }
  const Bucket bucket = NearestBucket(BucketsOfSide(side), image.width, image.height);
  const CropRect rect = CropForRatio(image.width, image.height, bucket.ratio());
  return CropAndResample(image, rect, bucket.width, bucket.height);
}

}  // namespace

CropRect CropForRatio(int32_t width, int32_t height, double ratio) {
  const double area = double{1} * width * height;
  const double rounded = RatioOfTraining(ratio);
  const int32_t w = Round(std::sqrt(area * rounded));
  const int32_t h = Round(std::sqrt(area / rounded));
  if (w > 0 && w <= width && h > 0 && h <= height) return Centred(width, height, w, h);
  const double own_ratio = static_cast<double>(width) / height;
  if (own_ratio < ratio) return Centred(width, height, width, Round(width / ratio));
  if (own_ratio > ratio) return Centred(width, height, Round(height * ratio), height);
  return {0, 0, width, height};
}

absl::StatusOr<LatentCrop> PrepareForLatents(const RgbImage& image, const ResizePreset& preset) {
  LANCET_ASSIGN_OR_RETURN(RgbImage crop, CropToBucket(image, preset.latent_side));
  return LatentCrop{std::move(crop)};
}

absl::StatusOr<VisionCrop> PrepareForVision(const RgbImage& image, const ResizePreset& preset) {
  LANCET_ASSIGN_OR_RETURN(const RgbImage bucket, CropToBucket(image, preset.vision_side));
  const CropRect rect = Centred(bucket.width, bucket.height, bucket.width - bucket.width % kVisionCellSide,
                                bucket.height - bucket.height % kVisionCellSide);
  LANCET_ASSIGN_OR_RETURN(RgbImage crop, Crop(bucket, rect));
  return VisionCrop{std::move(crop)};
}

}  // namespace lancet
