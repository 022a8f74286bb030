// What plans and messages of worker.proto share (convert.h), for their conversions alone.
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/rank_messages.h"
#include "common/request_plan.h"
#include "lancet/v1/worker.pb.h"

namespace lancet {

template <typename T, typename L>
absl::Status OutOfRange(absl::string_view field, T value, L lowest, L highest) {
  return absl::InvalidArgumentError(
      absl::StrCat(field, ": ", value, " is not within ", lowest, " to ", highest));
}

template <typename T>
absl::Status CheckRange(absl::string_view field, T value, T lowest, T highest) {
  // Written so that NaN fails.
  if (value >= lowest && value <= highest) return absl::OkStatus();
  return OutOfRange(field, value, lowest, highest);
}

// Pictures of at most kMaxImageSide a side and kMaxImagePixels, whose bytes fit their size. InvalidArgument
// begins with `field`.
void ImageToProto(const RgbImage& from, v1::RgbImage& to);
absl::StatusOr<RgbImage> ImageFromProto(absl::string_view field, const v1::RgbImage& from);

// Latents of at most kMaxPlanLatents tokens, whole ones. InvalidArgument begins with `field`.
void SnapshotToProto(const LatentSnapshot& from, v1::LatentSnapshot& to);
absl::StatusOr<LatentSnapshot> SnapshotFromProto(absl::string_view field, const v1::LatentSnapshot& from);

}  // namespace lancet
