#include "worker/model/vision/vision_patches.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/bf16.h"

namespace lancet {
namespace {

constexpr std::array<float, 3> kMean = {0.48145466f, 0.4578275f, 0.40821073f};
constexpr std::array<float, 3> kStd = {0.26862954f, 0.26130258f, 0.27577711f};

void Store(float value, float& out) { out = value; }
void Store(float value, bf16& out) { out = ToBf16(value); }

}  // namespace

absl::StatusOr<PicturePatches> PicturePatches::Create(const VisionConfig& config, const RgbImage& picture) {
  const int64_t cell = config.patch_size * config.merge_size;
  const int64_t width = picture.width;
  const int64_t height = picture.height;
  if (width < 1 || height < 1 || width % cell != 0 || height % cell != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a picture of ", width, "x", height, " pixels for the vision tower; expected multiples of ", cell));
  }
  if (picture.pixels.size() != static_cast<size_t>(width * height * 3)) {
    return absl::InvalidArgumentError(absl::StrCat("a picture of ", width, "x", height, " pixels has ",
                                                   picture.pixels.size(), " bytes; expected ",
                                                   width * height * 3));
  }
  return PicturePatches(config, picture);
}

PicturePatches::PicturePatches(const VisionConfig& config, const RgbImage& picture)
    : picture_(&picture),
      patch_(config.patch_size),
      merge_(config.merge_size),
      frames_(config.temporal_patch_size) {
  grid_.t = 1;
  grid_.h = static_cast<int32_t>(picture.height / patch_);
  grid_.w = static_cast<int32_t>(picture.width / patch_);
  for (size_t channel = 0; channel < kMean.size(); ++channel) {
    for (int pixel = 0; pixel < 256; ++pixel) {
      const float scaled = static_cast<float>(pixel) / 255.0f;
      value_of_[channel][pixel] = (scaled - kMean[channel]) / kStd[channel];
    }
  }
}

template <typename T>
void PicturePatches::Fill(int64_t index, T* out) const {
  const int64_t cell = index / (merge_ * merge_);
  const int64_t inside = index % (merge_ * merge_);
  const int64_t cells_per_row = grid_.w / merge_;
  const int64_t top = (cell / cells_per_row * merge_ + inside / merge_) * patch_;
  const int64_t left = (cell % cells_per_row * merge_ + inside % merge_) * patch_;
  const int64_t area = patch_ * patch_;
  for (int channel = 0; channel < 3; ++channel) {
    T* first = out + channel * frames_ * area;
    for (int64_t y = 0; y < patch_; ++y) {
      const uint8_t* pixel = picture_->pixels.data() + ((top + y) * picture_->width + left) * 3 + channel;
      for (int64_t x = 0; x < patch_; ++x) Store(value_of_[channel][pixel[x * 3]], first[y * patch_ + x]);
    }
    for (int64_t frame = 1; frame < frames_; ++frame) std::copy_n(first, area, first + frame * area);
  }
}

template void PicturePatches::Fill(int64_t, bf16*) const;
template void PicturePatches::Fill(int64_t, float*) const;

}  // namespace lancet
