// Which sizes the model's image inputs may have. A preset stands for two areas, one per encoder; for each
// encoder it offers six sizes of about that area, one per aspect ratio ("buckets"), and a picture goes to the
// one whose ratio is nearest to its own.
//
// Ratios are width / height: 21:9, 16:9, 4:3, 1:1, 3:4, 9:16. Sides are multiples of 16 for both encoders.
// For ratio a and area R * R, with every rounding half to even, the candidates are
//   W = 16 round(R sqrt(a) / 16), H = 16 round(W / a / 16)   and   H = 16 round(R / sqrt(a) / 16), W = 16
//   round(H a / 16)
// of which the one counts whose W / H is closer to a; if both are as close, the one whose area is; else the
// first.
#pragma once

#include <array>
#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lancet {

// The side R of the square with the preset's area, in pixels.
struct ResizePreset {
  int32_t latent_side = 0;  // for the autoencoder
  int32_t vision_side = 0;  // for the vision transformer

  friend bool operator==(const ResizePreset&, const ResizePreset&) = default;
};

inline constexpr int32_t kMinPresetSide = 64;    // below, flat buckets have no room for a cell of 28 x 28
inline constexpr int32_t kMaxPresetSide = 1024;  // the side of the latent position table, in pixels

// image_256res, image_512res, image_768res, video_192p, video_360p or video_480p; any may be used for any
// picture. InvalidArgument names what there is.
absl::StatusOr<ResizePreset> FindResizePreset(absl::string_view name);

// A preset of another area: `side` a multiple of 16 from 64 to 1024; the vision transformer gets 7 / 8 of it,
// as in the named presets for pictures. InvalidArgument names value and limits.
absl::StatusOr<ResizePreset> ResizePresetOfSide(int32_t side);

struct Bucket {
  int32_t width = 0;  // pixels
  int32_t height = 0;

  double ratio() const { return static_cast<double>(width) / height; }
  friend bool operator==(const Bucket&, const Bucket&) = default;
};

inline constexpr size_t kBucketCount = 6;

// In the order of the ratios above. `side` is from kMinPresetSide * 7 / 8 to kMaxPresetSide.
std::array<Bucket, kBucketCount> BucketsOfSide(int32_t side);

// The bucket whose actual width / height differs least from the picture's; the first of equals. Sides are
// positive.
Bucket NearestBucket(const std::array<Bucket, kBucketCount>& buckets, int32_t width, int32_t height);

}  // namespace lancet
