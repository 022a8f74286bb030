#include "common/vision_patches.h"

#include <array>
#include <cstddef>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/model_config.h"
#include "common/status_macros.h"

namespace lancet {
namespace {

// What the vision transformer was trained with, per channel.
constexpr std::array<float, 3> kVisionMean = {0.48145466f, 0.4578275f, 0.40821073f};
constexpr std::array<float, 3> kVisionDeviation = {0.26862954f, 0.26130258f, 0.27577711f};

// The normalised value of each of the 256 levels.
using LevelTable = std::array<float, 256>;

LevelTable Normalised(float mean, float deviation) {
  LevelTable table;
  for (size_t level = 0; level < table.size(); ++level) {
    table[level] = (static_cast<float>(level) / 255.0f - mean) / deviation;
  }
  return table;
}

absl::Status CheckImage(const RgbImage& image, int32_t multiple) {
  if (image.width < 1 || image.height < 1 || image.width % multiple != 0 || image.height % multiple != 0) {
    return absl::InvalidArgumentError(absl::StrCat("picture of ", image.width, " x ", image.height,
                                                   " pixels; sides must be positive multiples of ",
                                                   multiple));
  }
  const size_t expected = size_t{3} * static_cast<size_t>(image.width) * static_cast<size_t>(image.height);
  if (image.pixels.size() != expected) {
    return absl::InvalidArgumentError(absl::StrCat("picture of ", image.width, " x ", image.height, " has ",
                                                   image.pixels.size(), " bytes, expected ", expected));
  }
  return absl::OkStatus();
}

// One patch whose upper left pixel is `corner`; `stride` bytes from row to row. Writes kVisionPatchValues.
void WritePatch(const std::array<LevelTable, 3>& tables, const uint8_t* corner, size_t stride, float* out) {
  for (size_t c = 0; c < 3; ++c) {
    for (int frame = 0; frame < 2; ++frame) {
      for (size_t y = 0; y < kVisionPatchSide; ++y) {
        const uint8_t* row = corner + y * stride + c;
        for (size_t x = 0; x < kVisionPatchSide; ++x) *out++ = tables[c][row[3 * x]];
      }
    }
  }
}

}  // namespace

absl::StatusOr<std::vector<float>> VisionPatches(const RgbImage& image) {
  LANCET_RETURN_IF_ERROR(CheckImage(image, kVisionCellSide));
  std::array<LevelTable, 3> tables;
  for (size_t c = 0; c < 3; ++c) tables[c] = Normalised(kVisionMean[c], kVisionDeviation[c]);

  const size_t stride = size_t{3} * static_cast<size_t>(image.width);
  // Each pixel appears in both frames.
  std::vector<float> patches(2 * image.pixels.size());
  float* out = patches.data();
  for (int32_t cell_y = 0; cell_y < image.height; cell_y += kVisionCellSide) {
    for (int32_t cell_x = 0; cell_x < image.width; cell_x += kVisionCellSide) {
      for (const size_t dy : {size_t{0}, size_t{kVisionPatchSide}}) {
        for (const size_t dx : {size_t{0}, size_t{kVisionPatchSide}}) {
          const size_t y = static_cast<size_t>(cell_y) + dy;
          const size_t x = static_cast<size_t>(cell_x) + dx;
          WritePatch(tables, image.pixels.data() + y * stride + 3 * x, stride, out);
          out += kVisionPatchValues;
        }
      }
    }
  }
  return patches;
}

absl::StatusOr<std::vector<float>> LatentEncoderPlanes(const RgbImage& image) {
  LANCET_RETURN_IF_ERROR(CheckImage(image, kPixelsPerLatent));
  const LevelTable table = Normalised(0.5f, 0.5f);
  std::vector<float> planes(image.pixels.size());
  const size_t pixels = planes.size() / 3;
  for (size_t i = 0; i < pixels; ++i) {
    for (size_t c = 0; c < 3; ++c) planes[c * pixels + i] = table[image.pixels[3 * i + c]];
  }
  return planes;
}

}  // namespace lancet
