#include "worker/model/vision/vision_patches.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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

TEST(PicturePatchesTest, RefusesOddPictures) {
  const VisionConfig config;
  EXPECT_THAT(PicturePatches::Create(config, Picture(28, 27)),
              Fails(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr("28x27"), HasSubstr("of 28"))));
  EXPECT_THAT(PicturePatches::Create(config, Picture(0, 28)),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("0x28")));
  RgbImage short_one = Picture(28, 28);
  short_one.pixels.pop_back();
  EXPECT_THAT(PicturePatches::Create(config, short_one),
              Fails(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr("2351"), HasSubstr("2352"))));
}

}  // namespace
}  // namespace lancet
