#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <webp/decode.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>

#include "absl/strings/str_cat.h"
#include "coordinator/request/image_codec.h"
#include "coordinator/request/image_decoder.h"
#include "coordinator/request/image_scale.h"

namespace lancet {
namespace {

RgbImage Gradient(int32_t width, int32_t height) {
  RgbImage image{width, height, {}};
  for (int32_t y = 0; y < height; ++y) {
    for (int32_t x = 0; x < width; ++x) {
      image.pixels.push_back(static_cast<uint8_t>(255 * x / width));
      image.pixels.push_back(static_cast<uint8_t>(255 * y / height));
      image.pixels.push_back(static_cast<uint8_t>(128 + 90 * std::sin(0.2 * (x + y))));
    }
  }
  return image;
}

double MeanDifference(const RgbImage& a, const RgbImage& b) {
  EXPECT_EQ(a.width, b.width);
  EXPECT_EQ(a.height, b.height);
  if (a.pixels.size() != b.pixels.size()) return 255;
  double sum = 0;
  for (size_t i = 0; i < a.pixels.size(); ++i) sum += std::abs(a.pixels[i] - b.pixels[i]);
  return sum / static_cast<double>(a.pixels.size());
}

TEST(ImageCodecTest, PngIsLossless) {
  for (const auto& [width, height] : {std::pair{1, 1}, {37, 5}, {64, 64}}) {
    const RgbImage image = Gradient(width, height);
    const std::string bytes = EncodeImage(image, ImageFormat::kPng).value();
    EXPECT_EQ(bytes.substr(1, 3), "PNG");
    EXPECT_EQ(DecodeImage(bytes, {}).value(), image);
  }
}

// Quality 90 keeps a smooth picture within a few steps of 255.
TEST(ImageCodecTest, JpegIsClose) {
  for (const auto& [width, height] : {std::pair{1, 1}, {37, 5}, {64, 64}}) {
    const RgbImage image = Gradient(width, height);
    const std::string bytes = EncodeImage(image, ImageFormat::kJpeg).value();
    EXPECT_EQ(bytes.substr(0, 2), "\xff\xd8");
    EXPECT_LT(MeanDifference(DecodeImage(bytes, {}).value(), image), 4);
  }
}

// Alternating red and blue columns survive only without chroma subsampling.
TEST(ImageCodecTest, JpegKeepsColourResolution) {
  RgbImage image{32, 32, {}};
  for (int32_t i = 0; i < 32 * 32; ++i) {
    const bool red = i % 2 == 0;
    for (const int value : {red ? 200 : 40, 60, red ? 40 : 200})
      image.pixels.push_back(static_cast<uint8_t>(value));
  }
  const RgbImage back = DecodeImage(EncodeImage(image, ImageFormat::kJpeg).value(), {}).value();
  EXPECT_LT(MeanDifference(back, image), 12);
}

TEST(ImageCodecTest, WebpIsClose) {
  const RgbImage image = Gradient(64, 48);
  const std::string bytes = EncodeImage(image, ImageFormat::kWebp).value();
  EXPECT_EQ(bytes.substr(8, 4), "WEBP");
  RgbImage back;
  uint8_t* pixels =
      WebPDecodeRGB(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size(), &back.width, &back.height);
  ASSERT_NE(pixels, nullptr);
  back.pixels.assign(pixels,
                     pixels + size_t{3} * static_cast<size_t>(back.width) * static_cast<size_t>(back.height));
  WebPFree(pixels);
  EXPECT_LT(MeanDifference(back, image), 4);
}

TEST(ImageCodecTest, RefusesMalformedPictures) {
  for (const ImageFormat format : {ImageFormat::kPng, ImageFormat::kJpeg, ImageFormat::kWebp}) {
    SCOPED_TRACE(ImageFormatName(format));
    EXPECT_EQ(EncodeImage({}, format).status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(EncodeImage({2, 2, std::vector<uint8_t>(11)}, format).status().code(),
              absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(EncodeImage({16384, 1, std::vector<uint8_t>(3 * 16384)}, format).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(EncodeImage(Gradient(2, 2), static_cast<ImageFormat>(9)).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(ImageCodecTest, ReadsAPngOfAnotherProgram) {
  std::ifstream file(absl::StrCat(LANCET_TEST_DATA, "/nano/golden/t2i_64x64.png"), std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  const auto image = DecodeImage(bytes, {});
  ASSERT_TRUE(image.ok()) << image.status();
  EXPECT_EQ(image->width, 64);
  EXPECT_EQ(image->height, 64);
}

TEST(ImageScaleTest, AveragesDown) {
  RgbImage image{4, 2, {}};
  for (const int value : {0, 100, 10, 20, 50, 50, 30, 40}) {
    for (const int channel : {0, 1, 2}) image.pixels.push_back(static_cast<uint8_t>(value + channel));
  }
  const RgbImage small = FitImage(image, 2).value();
  EXPECT_EQ(small, (RgbImage{2, 1, {50, 51, 52, 25, 26, 27}}));
}

TEST(ImageScaleTest, KeepsProportionsAndTheLimit) {
  const struct {
    int32_t width, height, max_side, out_width, out_height;
  } cases[] = {
      {768, 512, 256, 256, 171}, {512, 768, 256, 171, 256}, {1000, 1, 16, 16, 1},
      {256, 256, 256, 256, 256}, {16, 16, 256, 256, 256},   {16, 12, 250, 240, 180},
      {200, 100, 399, 200, 100}, {1, 1, 3, 3, 3},
  };
  for (const auto& c : cases) {
    const RgbImage fitted = FitImage(Gradient(c.width, c.height), c.max_side).value();
    EXPECT_EQ(fitted.width, c.out_width);
    EXPECT_EQ(fitted.height, c.out_height);
    EXPECT_EQ(fitted.pixels.size(),
              size_t{3} * static_cast<size_t>(c.out_width) * static_cast<size_t>(c.out_height));
  }
}

// A constant picture stays constant at every ratio: the weights sum to 1.
TEST(ImageScaleTest, AConstantStaysConstant) {
  for (const int32_t max_side : {1, 3, 7, 16, 20, 33, 64, 100}) {
    const RgbImage image{20, 13, std::vector<uint8_t>(20 * 13 * 3, 255)};
    const RgbImage fitted = FitImage(image, max_side).value();
    EXPECT_THAT(fitted.pixels, ::testing::Each(255)) << max_side;
  }
}

TEST(ImageScaleTest, EnlargesSmoothlyBetweenCentres) {
  const RgbImage image{2, 1, {0, 0, 0, 100, 100, 100}};
  const RgbImage large = FitImage(image, 8).value();
  ASSERT_EQ(large.width, 8);
  ASSERT_EQ(large.height, 4);
  std::vector<int> row;
  for (size_t x = 0; x < 8; ++x) row.push_back(large.pixels[3 * x]);
  EXPECT_THAT(row, ::testing::ElementsAre(0, 0, 13, 38, 63, 88, 100, 100));
}

TEST(ImageScaleTest, RefusesNonsense) {
  EXPECT_EQ(FitImage(Gradient(2, 2), 0).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(FitImage({}, 16).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(FitImage({2, 2, {1, 2, 3}}, 16).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace lancet
