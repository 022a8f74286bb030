#include "common/vision_patches.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>

#include "tests/testing/status_matchers.h"

namespace lancet {
namespace {

using ::testing::_;
using ::testing::HasSubstr;

// A pixel's red is its column, green its row, blue constant.
RgbImage Coordinates(int32_t width, int32_t height) {
  RgbImage image{width, height, {}};
  for (int32_t y = 0; y < height; ++y) {
    for (int32_t x = 0; x < width; ++x) {
      image.pixels.push_back(static_cast<uint8_t>(x));
      image.pixels.push_back(static_cast<uint8_t>(y));
      image.pixels.push_back(255);
    }
  }
  return image;
}

TEST(VisionPatchesTest, PatchesComeCellByCell) {
  const std::vector<float> patches = VisionPatches(Coordinates(56, 28)).value();
  ASSERT_EQ(patches.size(), 8u * kVisionPatchValues);
  const float mean[] = {0.48145466f, 0.4578275f, 0.40821073f};
  const float deviation[] = {0.26862954f, 0.26130258f, 0.27577711f};
  const int corners[8][2] = {{0, 0}, {14, 0}, {0, 14}, {14, 14}, {28, 0}, {42, 0}, {28, 14}, {42, 14}};
  const float* value = patches.data();
  for (const auto& [left, top] : corners) {
    for (int channel = 0; channel < 3; ++channel) {
      for (int frame = 0; frame < 2; ++frame) {
        for (int y = 0; y < 14; ++y) {
          for (int x = 0; x < 14; ++x) {
            const int level = channel == 0 ? left + x : channel == 1 ? top + y : 255;
            const float expected = (static_cast<float>(level) / 255.0f - mean[channel]) / deviation[channel];
            ASSERT_EQ(*value++, expected) << left << " " << top << " " << channel << " " << y << " " << x;
          }
        }
      }
    }
  }
}

TEST(VisionPatchesTest, PlanesRunFromMinusOneToOne) {
  RgbImage image = Coordinates(16, 32);
  const std::vector<float> planes = LatentEncoderPlanes(image).value();
  ASSERT_EQ(planes.size(), 3u * 16 * 32);
  EXPECT_EQ(planes[0], -1.0f);
  EXPECT_EQ(planes[15], (15.0f / 255.0f - 0.5f) / 0.5f);
  EXPECT_EQ(planes[16 * 32 + 16 * 31 + 3], (31.0f / 255.0f - 0.5f) / 0.5f);
  EXPECT_EQ(planes.back(), 1.0f);
}

TEST(VisionPatchesTest, RefusesOtherSizes) {
  EXPECT_THAT(VisionPatches(Coordinates(42, 28)),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("of 28")));
  EXPECT_THAT(VisionPatches({}), Fails(absl::StatusCode::kInvalidArgument, _));
  EXPECT_THAT(VisionPatches({28, 28, {1, 2, 3}}),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("3 bytes")));
  EXPECT_THAT(LatentEncoderPlanes(Coordinates(16, 24)),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("of 16")));
}

}  // namespace
}  // namespace lancet
