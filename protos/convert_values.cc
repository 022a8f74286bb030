#include "protos/convert_values.h"

#include <cstring>
#include <string>
#include <vector>

#include "common/model_config.h"
#include "common/status_macros.h"
#include "protos/convert.h"

namespace lancet {
namespace {

// Whole values of at most kMaxPlanLatents latents.
template <typename T>
absl::StatusOr<std::vector<T>> ValuesFromBytes(absl::string_view field, const std::string& from) {
  constexpr size_t kLimit = static_cast<size_t>(kMaxPlanLatents) * kLatentChannels * sizeof(T);
  if (from.size() > kLimit || from.size() % (kLatentChannels * sizeof(T)) != 0) {
    return absl::InvalidArgumentError(absl::StrCat(field, ": ", from.size(),
                                                   " bytes, expected a multiple of ",
                                                   kLatentChannels * sizeof(T), " up to ", kLimit));
  }
  std::vector<T> to(from.size() / sizeof(T));
  // memcpy takes no null, not even for nothing.
  if (!to.empty()) std::memcpy(to.data(), from.data(), from.size());
  return to;
}

}  // namespace

void ImageToProto(const RgbImage& from, v1::RgbImage& to) {
  to.set_width(from.width);
  to.set_height(from.height);
  to.set_pixels(from.pixels.data(), from.pixels.size());
}

absl::StatusOr<RgbImage> ImageFromProto(absl::string_view field, const v1::RgbImage& from) {
  LANCET_RETURN_IF_ERROR(CheckRange(absl::StrCat(field, ".width"), from.width(), 1, kMaxImageSide));
  LANCET_RETURN_IF_ERROR(CheckRange(absl::StrCat(field, ".height"), from.height(), 1, kMaxImageSide));
  const int64_t pixels = int64_t{from.width()} * from.height();
  LANCET_RETURN_IF_ERROR(
      CheckRange(absl::StrCat(field, ": width * height"), pixels, int64_t{1}, kMaxImagePixels));
  if (static_cast<int64_t>(from.pixels().size()) != 3 * pixels) {
    return absl::InvalidArgumentError(absl::StrCat(field, ".pixels: ", from.pixels().size(),
                                                   " bytes, expected ", from.width(), " x ", from.height(),
                                                   " x 3"));
  }
  return RgbImage{from.width(), from.height(), {from.pixels().begin(), from.pixels().end()}};
}

void SnapshotToProto(const LatentSnapshot& from, v1::LatentSnapshot& to) {
  to.set_step(from.step);
  to.set_latents(from.latents.data(), from.latents.size() * sizeof(bf16));
  to.set_previous_clean(from.previous_clean.data(), from.previous_clean.size() * sizeof(float));
}

absl::StatusOr<LatentSnapshot> SnapshotFromProto(absl::string_view field, const v1::LatentSnapshot& from) {
  LatentSnapshot to;
  LANCET_RETURN_IF_ERROR(CheckRange(absl::StrCat(field, ".step"), from.step(), 1, kMaxPlanSteps));
  to.step = from.step();
  LANCET_ASSIGN_OR_RETURN(to.latents, ValuesFromBytes<bf16>(absl::StrCat(field, ".latents"), from.latents()));
  LANCET_ASSIGN_OR_RETURN(to.previous_clean, ValuesFromBytes<float>(absl::StrCat(field, ".previous_clean"),
                                                                    from.previous_clean()));
  return to;
}

}  // namespace lancet
