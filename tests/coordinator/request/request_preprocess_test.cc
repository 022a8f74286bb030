#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "coordinator/request/preprocess.h"
#include "coordinator/request/resample.h"
#include "coordinator/request/resize_presets.h"
#include "tests/testing/status_matchers.h"

namespace lancet {
namespace {

using ::testing::_;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Expected values of this file come from the code that the model was trained with.

struct ExpectedBucket {
  Bucket latent;        // autoencoder
  Bucket vision;        // vision transformer, before its crop
  Bucket vision_crop;   // after it
  int32_t grid_height;  // in patches
  int32_t grid_width;
  int32_t tokens;
};

struct ExpectedPreset {
  const char* name;
  ExpectedBucket buckets[kBucketCount];
};

// clang-format off
const ExpectedPreset kPresets[] = {
    {"image_256res", {
        {{368, 160}, {336, 144}, {336, 140}, 10, 24, 60},
        {{336, 192}, {288, 160}, {280, 140}, 10, 20, 50},
        {{304, 224}, {256, 192}, {252, 168}, 12, 18, 54},
        {{256, 256}, {224, 224}, {224, 224}, 16, 16, 64},
        {{224, 304}, {192, 256}, {168, 252}, 18, 12, 54},
        {{192, 336}, {160, 288}, {140, 280}, 20, 10, 50}}},
    {"image_512res", {
        {{784, 336}, {672, 288}, {672, 280}, 20, 48, 240},
        {{688, 384}, {592, 336}, {588, 336}, 24, 42, 252},
        {{592, 448}, {512, 384}, {504, 364}, 26, 36, 234},
        {{512, 512}, {448, 448}, {448, 448}, 32, 32, 256},
        {{448, 592}, {384, 512}, {364, 504}, 36, 26, 234},
        {{384, 688}, {336, 592}, {336, 588}, 42, 24, 252}}},
    {"image_768res", {
        {{1152, 496}, {1008, 432}, {1008, 420}, 30, 72, 540},
        {{1024, 576}, {912, 512}, {896, 504}, 36, 64, 576},
        {{896, 672}, {768, 576}, {756, 560}, 40, 54, 540},
        {{768, 768}, {672, 672}, {672, 672}, 48, 48, 576},
        {{672, 896}, {576, 768}, {560, 756}, 54, 40, 540},
        {{576, 1024}, {512, 912}, {504, 896}, 64, 36, 576}}},
    {"video_360p", {
        {{752, 320}, {704, 304}, {700, 280}, 20, 50, 250},
        {{624, 352}, {624, 352}, {616, 336}, 24, 44, 264},
        {{560, 416}, {560, 416}, {560, 392}, 28, 40, 280},
        {{480, 480}, {480, 480}, {476, 476}, 34, 34, 289},
        {{416, 560}, {416, 560}, {392, 560}, 40, 28, 280},
        {{352, 624}, {352, 624}, {336, 616}, 44, 24, 264}}},
    {"video_480p", {
        {{976, 416}, {928, 400}, {924, 392}, 28, 66, 462},
        {{848, 480}, {832, 464}, {812, 448}, 32, 58, 464},
        {{752, 560}, {704, 528}, {700, 504}, 36, 50, 450},
        {{640, 640}, {608, 608}, {588, 588}, 42, 42, 441},
        {{560, 752}, {528, 704}, {504, 700}, 50, 36, 450},
        {{480, 848}, {464, 832}, {448, 812}, 58, 32, 464}}},
};
// clang-format on

RgbImage Synthetic(int32_t width, int32_t height) {
  RgbImage image{width, height, {}};
  for (int32_t y = 0; y < height; ++y) {
    for (int32_t x = 0; x < width; ++x) {
      for (const int32_t value : {3 * x + 5 * y, 7 * x + 2 * y, x * x / 64 + y}) {
        image.pixels.push_back(static_cast<uint8_t>(value % 256));
      }
    }
  }
  return image;
}

ResizePreset Preset(absl::string_view name) { return FindResizePreset(name).value(); }

TEST(ResizePresetsTest, BucketsAreThoseOfTraining) {
  for (const ExpectedPreset& expected : kPresets) {
    const ResizePreset preset = Preset(expected.name);
    const auto latent = BucketsOfSide(preset.latent_side);
    const auto vision = BucketsOfSide(preset.vision_side);
    for (size_t i = 0; i < kBucketCount; ++i) {
      SCOPED_TRACE(absl::StrCat(expected.name, " ", i));
      EXPECT_EQ(latent[i], expected.buckets[i].latent);
      EXPECT_EQ(vision[i], expected.buckets[i].vision);
    }
  }
  EXPECT_EQ(Preset("video_192p"), Preset("image_256res"));
}

// A picture of the bucket's own size is resized to it, and gives the crop and the grid.
TEST(PreprocessTest, CropsAndGridsAreThoseOfTraining) {
  for (const ExpectedPreset& expected : kPresets) {
    const ResizePreset preset = Preset(expected.name);
    for (const ExpectedBucket& bucket : expected.buckets) {
      const VisionCrop vision =
          PrepareForVision(Synthetic(bucket.vision.width, bucket.vision.height), preset).value();
      SCOPED_TRACE(absl::StrCat(expected.name, " ", bucket.vision.width, " x ", bucket.vision.height));
      EXPECT_EQ((Bucket{vision.image.width, vision.image.height}), bucket.vision_crop);
      EXPECT_EQ(vision.grid_height(), bucket.grid_height);
      EXPECT_EQ(vision.grid_width(), bucket.grid_width);
      EXPECT_EQ(vision.num_tokens(), bucket.tokens);
      const LatentCrop latent =
          PrepareForLatents(Synthetic(bucket.latent.width, bucket.latent.height), preset).value();
      EXPECT_EQ(latent.image, Synthetic(bucket.latent.width, bucket.latent.height));
      EXPECT_EQ(latent.latent_width(), bucket.latent.width / 16);
    }
  }
}

TEST(ResizePresetsTest, RefusesWhatThereIsNot) {
  EXPECT_THAT(FindResizePreset("image_1024res"),
              Fails(absl::StatusCode::kInvalidArgument,
                    AllOf(HasSubstr("image_1024res"), HasSubstr("image_768res"))));
  for (const int32_t side : {0, -16, 48, 65, 1040}) {
    EXPECT_THAT(ResizePresetOfSide(side),
                Fails(absl::StatusCode::kInvalidArgument,
                      AllOf(HasSubstr(absl::StrCat(side)), HasSubstr("64 to 1024"))));
  }
  EXPECT_EQ(ResizePresetOfSide(768).value(), Preset("image_768res"));
  EXPECT_EQ(ResizePresetOfSide(512).value(), Preset("image_512res"));
}

TEST(ResizePresetsTest, NearestByDifferenceOfRatios) {
  const ResizePreset preset = Preset("image_768res");
  // The two encoders' ratios differ, so this picture goes to 21:9 of one and 16:9 of the other.
  EXPECT_EQ(NearestBucket(BucketsOfSide(preset.latent_side), 2055, 1000), (Bucket{1152, 496}));
  EXPECT_EQ(NearestBucket(BucketsOfSide(preset.vision_side), 2055, 1000), (Bucket{912, 512}));
}

struct CropVector {
  int32_t width, height;
  const char* preset;
  CropRect latent_rect, vision_rect;
  const char* latent_crc;
  const char* vision_crc;
};

std::string Crc(const RgbImage& image) {
  return absl::StrFormat("%08X", crc32_z(0, image.pixels.data(), image.pixels.size()));
}

TEST(PreprocessTest, PixelsAreThoseOfTraining) {
  const CropVector vectors[] = {
      {1024, 683, "image_768res", {56, 0, 911, 683}, {56, 0, 911, 683}, "E64E2C50", "0E127E83"},
      {640, 480, "video_480p", {0, 1, 640, 477}, {0, 0, 640, 480}, "4D43517D", "785A31C6"},
      {300, 500, "image_256res", {7, 0, 286, 500}, {11, 0, 278, 500}, "99E8928E", "82B2B1C2"},
      {50, 40, "image_512res", {0, 1, 50, 38}, {0, 1, 50, 38}, "AA2A9D0A", "CAAE9F58"},
      {1920, 1080, "video_360p", {2, 0, 1915, 1080}, {2, 0, 1915, 1080}, "C1280D4D", "D11A1308"},
  };
  for (const CropVector& v : vectors) {
    SCOPED_TRACE(absl::StrCat(v.width, " x ", v.height));
    const ResizePreset preset = Preset(v.preset);
    const RgbImage image = Synthetic(v.width, v.height);
    const Bucket latent = NearestBucket(BucketsOfSide(preset.latent_side), v.width, v.height);
    const Bucket vision = NearestBucket(BucketsOfSide(preset.vision_side), v.width, v.height);
    EXPECT_EQ(CropForRatio(v.width, v.height, latent.ratio()), v.latent_rect);
    EXPECT_EQ(CropForRatio(v.width, v.height, vision.ratio()), v.vision_rect);
    EXPECT_EQ(Crc(PrepareForLatents(image, preset).value().image), v.latent_crc);
    EXPECT_EQ(Crc(PrepareForVision(image, preset).value().image), v.vision_crc);
  }
}

// 558 columns of this ratio fit by the first rule; the second alone would give 557.
TEST(PreprocessTest, NearlyFittingPicturesKeepTheirPixels) {
  const double ratio = Bucket{1152, 496}.ratio();
  EXPECT_EQ(CropForRatio(558, 240, ratio), (CropRect{0, 0, 558, 240}));
  EXPECT_EQ(CropForRatio(559, 240, ratio).left, 0);
}

TEST(PreprocessTest, TinyAndExtremePicturesWork) {
  const ResizePreset presets[] = {Preset("image_256res"), ResizePresetOfSide(kMinPresetSide).value()};
  std::vector<std::pair<int32_t, int32_t>> sizes = {{16384, 1}, {1, 16384}, {16384, 2}, {3, 16000}};
  for (int32_t width = 1; width <= 24; ++width) {
    for (int32_t height = 1; height <= 24; ++height) sizes.emplace_back(width, height);
  }
  for (const auto& [width, height] : sizes) {
    const RgbImage image{
        width, height,
        std::vector<uint8_t>(size_t{3} * static_cast<size_t>(width) * static_cast<size_t>(height), 200)};
    for (const ResizePreset& preset : presets) {
      const auto latent = PrepareForLatents(image, preset);
      const auto vision = PrepareForVision(image, preset);
      ASSERT_TRUE(latent.ok()) << width << " x " << height << ": " << latent.status();
      ASSERT_TRUE(vision.ok()) << width << " x " << height << ": " << vision.status();
      // The weights sum to 1 but for their rounding, so a constant stays what it is.
      EXPECT_EQ(latent->image.pixels, std::vector<uint8_t>(latent->image.pixels.size(), 200));
      EXPECT_EQ(vision->image.pixels, std::vector<uint8_t>(vision->image.pixels.size(), 200));
    }
  }
}

TEST(PreprocessTest, RefusesMalformedPictures) {
  for (const RgbImage& image : {RgbImage{}, RgbImage{2, 2, {1, 2, 3}}, RgbImage{-1, 5, {}}}) {
    EXPECT_THAT(PrepareForLatents(image, Preset("image_256res")),
                Fails(absl::StatusCode::kInvalidArgument, _));
    EXPECT_THAT(PrepareForVision(image, Preset("image_256res")),
                Fails(absl::StatusCode::kInvalidArgument, _));
  }
}

TEST(ResampleTest, AnAxisThatStaysIsLeftAlone) {
  const RgbImage image = Synthetic(20, 10);
  EXPECT_EQ(CropAndResample(image, {0, 0, 20, 10}, 20, 10).value(), image);
  // Only rows change: every column is resampled on its own.
  const RgbImage flat =
      CropAndResample({2, 2, {10, 10, 10, 90, 90, 90, 30, 30, 30, 90, 90, 90}}, {0, 0, 2, 2}, 2, 1).value();
  EXPECT_THAT(flat.pixels, ElementsAre(20, 20, 20, 90, 90, 90));
}

TEST(ResampleTest, NothingOutsideTheRectangleCounts) {
  RgbImage image = Synthetic(40, 30);
  const CropRect rect{5, 6, 20, 15};
  const RgbImage before = CropAndResample(image, rect, 33, 7).value();
  for (int32_t y = 0; y < image.height; ++y) {
    for (int32_t x = 0; x < image.width; ++x) {
      if (x >= 5 && x < 25 && y >= 6 && y < 21) continue;
      image.pixels[3 * static_cast<size_t>(y * image.width + x)] ^= 0xff;
    }
  }
  EXPECT_EQ(CropAndResample(image, rect, 33, 7).value(), before);
}

TEST(ResampleTest, RefusesRectanglesOutsideAndSizesWithoutPixels) {
  const RgbImage image = Synthetic(4, 4);
  for (const CropRect& rect : {CropRect{-1, 0, 2, 2}, CropRect{0, 3, 2, 2}, CropRect{3, 0, 2, 2},
                               CropRect{0, 0, 0, 2}, CropRect{0, 0, 5, 1}, CropRect{2147483647, 0, 1, 1}}) {
    EXPECT_THAT(Crop(image, rect), Fails(absl::StatusCode::kInvalidArgument, HasSubstr("rectangle")));
  }
  for (const int32_t side : {0, -1, 16385}) {
    EXPECT_THAT(CropAndResample(image, {0, 0, 4, 4}, side, 4), Fails(absl::StatusCode::kInvalidArgument, _));
    EXPECT_THAT(CropAndResample(image, {0, 0, 4, 4}, 4, side), Fails(absl::StatusCode::kInvalidArgument, _));
  }
}

}  // namespace
}  // namespace lancet
