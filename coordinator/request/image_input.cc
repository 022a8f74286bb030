#include "coordinator/request/image_input.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "coordinator/request/preprocess.h"

namespace lancet {

absl::StatusOr<ImageInput> PrepareImage(absl::string_view file, const DecodeLimits& limits,
                                        const ResizePreset& preset, bool with_condition) {
  const absl::StatusOr<RgbImage> image = DecodeImage(file, limits);
  if (!image.ok())
    return absl::Status(image.status().code(), absl::StrCat("images: ", image.status().message()));
  ImageInput input{.width = image->width, .height = image->height, .vision = {}, .condition = {}};
  LANCET_ASSIGN_OR_RETURN(VisionCrop vision, PrepareForVision(*image, preset));
  input.vision = std::move(vision.image);
  if (with_condition) {
    LANCET_ASSIGN_OR_RETURN(LatentCrop latents, PrepareForLatents(*image, preset));
    input.condition = std::move(latents.image);
  }
  return input;
}

}  // namespace lancet
