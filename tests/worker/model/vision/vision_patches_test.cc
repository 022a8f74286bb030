#include "worker/model/vision/vision_patches.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/bf16.h"
#include "tests/testing/status_matchers.h"

namespace lancet {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

RgbImage Picture(int32_t width, int32_t height) {
  RgbImage picture{width, height, {}};
  for (int32_t i = 0; i < width * height * 3; ++i) {
    picture.pixels.push_back(static_cast<uint8_t>(static_cast<uint32_t>(i) * 2654435761u >> 24));
  }
  return picture;
}

// Walks the picture pixel by pixel and says where each value belongs, the other way round than the code.
TEST(PicturePatchesTest, EveryPixelGoesToItsPlace) {
  const VisionConfig config;
  const RgbImage picture = Picture(84, 56);
  const auto patches = PicturePatches::Create(config, picture);
  ASSERT_THAT(patches, IsOk());
  EXPECT_EQ(patches->grid().t, 1);
  EXPECT_EQ(patches->grid().h, 4);
  EXPECT_EQ(patches->grid().w, 6);
  std::vector<bf16> values(24 * config.patch_values());
  for (int64_t i = 0; i < 24; ++i) patches->Fill(i, values.data() + i * config.patch_values());
  constexpr float kMean[] = {0.48145466f, 0.4578275f, 0.40821073f};
  constexpr float kStd[] = {0.26862954f, 0.26130258f, 0.27577711f};
  for (int y = 0; y < 56; ++y) {
    for (int x = 0; x < 84; ++x) {
      for (int c = 0; c < 3; ++c) {
        const float pixel = picture.pixels[(y * 84 + x) * 3 + c];
        const float expected = RoundToBf16((pixel / 255.0f - kMean[c]) / kStd[c]);
        const int patch = (y / 28 * 3 + x / 28) * 4 + y % 28 / 14 * 2 + x % 28 / 14;
        for (int frame = 0; frame < 2; ++frame) {
          const int inside = ((c * 2 + frame) * 14 + y % 14) * 14 + x % 14;
          ASSERT_EQ(ToFloat(values[patch * 1176 + inside]), expected) << y << " " << x << " " << c;
        }
      }
    }
  }
}

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

TEST(PicturePatchesTest, PatchesComeCellByCell) {
  const VisionConfig config;
  const RgbImage picture = Coordinates(56, 28);
  const auto patches = PicturePatches::Create(config, picture);
  ASSERT_THAT(patches, IsOk());
  ASSERT_EQ(patches->grid().patches(), 8);
  ASSERT_EQ(config.patch_values(), 3 * 2 * 14 * 14);
  const float mean[] = {0.48145466f, 0.4578275f, 0.40821073f};
  const float deviation[] = {0.26862954f, 0.26130258f, 0.27577711f};
  const int corners[8][2] = {{0, 0}, {14, 0}, {0, 14}, {14, 14}, {28, 0}, {42, 0}, {28, 14}, {42, 14}};
  for (int64_t index = 0; index < 8; ++index) {
    const auto& [left, top] = corners[index];
    std::vector<float> values(config.patch_values());
    patches->Fill(index, values.data());
    const float* value = values.data();
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

TEST(PicturePatchesTest, RefusesOddPictures) {
  const VisionConfig config;
  EXPECT_THAT(PicturePatches::Create(config, Picture(28, 27)),
              Fails(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr("28x27"), HasSubstr("of 28"))));
  EXPECT_THAT(PicturePatches::Create(config, Picture(42, 28)),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("of 28")));
  EXPECT_THAT(PicturePatches::Create(config, Picture(0, 28)),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("0x28")));
  EXPECT_THAT(PicturePatches::Create(config, {}),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("0x0")));
  EXPECT_THAT(PicturePatches::Create(config, {28, 28, {1, 2, 3}}),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("3 bytes")));
  RgbImage short_one = Picture(28, 28);
  short_one.pixels.pop_back();
  EXPECT_THAT(PicturePatches::Create(config, short_one),
              Fails(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr("2351"), HasSubstr("2352"))));
}

}  // namespace
}  // namespace lancet
