#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <webp/encode.h>

#include <cmath>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "coordinator/request/exif_orientation.h"
#include "coordinator/request/image_codec.h"
#include "coordinator/request/image_decoder.h"
#include "tests/coordinator/request/picture_files.h"
#include "tests/testing/status_matchers.h"

namespace lancet {
namespace {

using ::testing::_;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Bytes = std::vector<uint8_t>;

RgbImage Decoded(const std::string& file) {
  const absl::StatusOr<RgbImage> image = DecodeImage(file, {});
  EXPECT_TRUE(image.ok()) << image.status();
  return image.ok() ? *image : RgbImage{};
}

// Pixels that differ everywhere, smooth enough for JPEG.
Bytes Gradient(int32_t width, int32_t height, int channels) {
  Bytes pixels;
  for (int32_t y = 0; y < height; ++y) {
    for (int32_t x = 0; x < width; ++x) {
      for (int c = 0; c < channels; ++c) {
        pixels.push_back(static_cast<uint8_t>(128 + 100 * std::sin(0.11 * x + 0.07 * y * (c + 1) + c)));
      }
    }
  }
  return pixels;
}

// The compositing rule in its exact form: rounding to nearest of (255 (255 - a) + v a) / 255.
uint8_t OnWhite(int value, int alpha) {
  return static_cast<uint8_t>((2 * (255 * (255 - alpha) + value * alpha) + 255) / 510);
}

TEST(ImageDecoderTest, PngGreyOfEveryDepth) {
  EXPECT_THAT(Decoded(MakePng({2, 1, 1, 0, {0b01000000}})).pixels, ElementsAre(0, 0, 0, 255, 255, 255));
  EXPECT_THAT(Decoded(MakePng({2, 1, 2, 0, {0b01100000}})).pixels, ElementsAre(85, 85, 85, 170, 170, 170));
  EXPECT_THAT(Decoded(MakePng({2, 1, 4, 0, {0x3c}})).pixels, ElementsAre(51, 51, 51, 204, 204, 204));
  EXPECT_THAT(Decoded(MakePng({2, 1, 8, 0, {7, 250}})).pixels, ElementsAre(7, 7, 7, 250, 250, 250));
}

// 16-bit grey is clamped, not scaled; 16-bit colour keeps the high byte.
TEST(ImageDecoderTest, PngOf16Bits) {
  EXPECT_THAT(Decoded(MakePng({3, 1, 16, 0, {0, 200, 1, 0, 200, 7}})).pixels,
              ElementsAre(200, 200, 200, 255, 255, 255, 255, 255, 255));
  EXPECT_THAT(Decoded(MakePng({1, 1, 16, 2, {10, 255, 20, 128, 30, 0}})).pixels, ElementsAre(10, 20, 30));
  EXPECT_THAT(Decoded(MakePng({1, 1, 16, 6, {10, 255, 20, 128, 30, 0, 77, 1}})).pixels,
              ElementsAre(OnWhite(10, 77), OnWhite(20, 77), OnWhite(30, 77)));
  const uint8_t grey = OnWhite(90, 33);
  EXPECT_THAT(Decoded(MakePng({1, 1, 16, 4, {90, 1, 33, 255}})).pixels, ElementsAre(grey, grey, grey));
}

TEST(ImageDecoderTest, PngGreyWithAlphaLosesIt) {
  EXPECT_THAT(Decoded(MakePng({2, 1, 8, 4, {40, 0, 50, 128}})).pixels, ElementsAre(40, 40, 40, 50, 50, 50));
}

TEST(ImageDecoderTest, AlphaIsCompositedOverWhiteForEveryPair) {
  Bytes rgba;
  Bytes expected;
  for (int value = 0; value < 256; ++value) {
    for (int alpha = 0; alpha < 256; ++alpha) {
      for (const int c : {value, 255 - value, 17}) {
        rgba.push_back(static_cast<uint8_t>(c));
        expected.push_back(OnWhite(c, alpha));
      }
      rgba.push_back(static_cast<uint8_t>(alpha));
    }
  }
  EXPECT_EQ(Decoded(MakePng({256, 256, 8, 6, rgba})).pixels, expected);
  // WebP keeps no colour where nothing shows, which is white all the same.
  EXPECT_EQ(Decoded(MakeWebp(256, 256, rgba)).pixels, expected);
}

TEST(ImageDecoderTest, PngPalettes) {
  PngSource source{4, 1, 8, 3, {0, 1, 2, 1}, {10, 20, 30, 40, 50, 60, 70, 80, 90}};
  EXPECT_THAT(Decoded(MakePng(source)).pixels, ElementsAre(10, 20, 30, 40, 50, 60, 70, 80, 90, 40, 50, 60));
  source.palette_alpha = {0, 100};  // the third has none, so it is opaque
  EXPECT_THAT(Decoded(MakePng(source)).pixels,
              ElementsAre(255, 255, 255, OnWhite(40, 100), OnWhite(50, 100), OnWhite(60, 100), 70, 80, 90,
                          OnWhite(40, 100), OnWhite(50, 100), OnWhite(60, 100)));
  source.depth = 2;
  source.rows = {0b00011001};
  EXPECT_THAT(Decoded(MakePng(source)).pixels,
              ElementsAre(255, 255, 255, OnWhite(40, 100), OnWhite(50, 100), OnWhite(60, 100), 70, 80, 90,
                          OnWhite(40, 100), OnWhite(50, 100), OnWhite(60, 100)));
}

TEST(ImageDecoderTest, PngTransparentColourIsIgnored) {
  PngSource rgb{2, 1, 8, 2, {9, 9, 9, 1, 2, 3}};
  rgb.transparent_value = 9;
  EXPECT_THAT(Decoded(MakePng(rgb)).pixels, ElementsAre(9, 9, 9, 1, 2, 3));
  PngSource grey{2, 1, 8, 0, {9, 5}};
  grey.transparent_value = 9;
  EXPECT_THAT(Decoded(MakePng(grey)).pixels, ElementsAre(9, 9, 9, 5, 5, 5));
}

TEST(ImageDecoderTest, InterlacedPngIsTheSamePicture) {
  for (const int colour_type : {0, 2, 4, 6}) {
    const int channels[] = {1, 0, 3, 0, 2, 0, 4};
    PngSource source{37, 21, 8, colour_type, Gradient(37, 21, channels[colour_type])};
    const RgbImage plain = Decoded(MakePng(source));
    source.interlaced = true;
    EXPECT_EQ(Decoded(MakePng(source)), plain) << colour_type;
  }
}

TEST(ImageDecoderTest, PngProfilesAndTextAreSkipped) {
  std::string png = MakePng({1, 1, 8, 2, {1, 2, 3}});
  png = WithPngChunk(png, "gAMA", absl::string_view("\0\0\x27\x10", 4));
  png = WithPngChunk(png, "iCCP", "nonsense that is no profile");
  png = WithPngChunk(png, "zTXt", "neither is this text");
  EXPECT_THAT(Decoded(png).pixels, ElementsAre(1, 2, 3));
}

double MeanDifference(const Bytes& a, const Bytes& b) {
  if (a.size() != b.size()) return 255;
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += std::abs(a[i] - b[i]);
  return sum / static_cast<double>(a.size());
}

TEST(ImageDecoderTest, JpegGreyColourAndSubsampling) {
  const Bytes grey = Gradient(45, 30, 1);
  Bytes replicated;
  for (const uint8_t value : grey) replicated.insert(replicated.end(), 3, value);
  EXPECT_LT(MeanDifference(Decoded(MakeJpeg({45, 30, 1, grey})).pixels, replicated), 1);
  const Bytes rgb = Gradient(45, 30, 3);
  JpegSource source{45, 30, 3, rgb};
  EXPECT_LT(MeanDifference(Decoded(MakeJpeg(source)).pixels, rgb), 1.5);
  source.chroma_step = 2;
  EXPECT_LT(MeanDifference(Decoded(MakeJpeg(source)).pixels, rgb), 6);
}

// The same coefficients in another order.
TEST(ImageDecoderTest, ProgressiveJpegIsTheSamePicture) {
  JpegSource source{83, 50, 3, Gradient(83, 50, 3)};
  source.chroma_step = 2;
  const RgbImage sequential = Decoded(MakeJpeg(source));
  source.progressive = true;
  EXPECT_EQ(Decoded(MakeJpeg(source)), sequential);
  source.progressive = false;
  source.separate_scans = true;
  EXPECT_EQ(Decoded(MakeJpeg(source)), sequential);
}

// Inks are stored inverted: light = stored black, channel = light - (255 - stored ink) light / 255.
TEST(ImageDecoderTest, CmykJpeg) {
  const int inks[][4] = {{255, 255, 255, 255}, {255, 255, 255, 0}, {0, 255, 255, 255}, {200, 100, 50, 180}};
  for (const auto& ink : inks) {
    Bytes pixels;
    for (int i = 0; i < 16 * 16; ++i) pixels.insert(pixels.end(), ink, ink + 4);
    for (const bool ycck : {false, true}) {
      JpegSource source{16, 16, 4, pixels};
      source.ycck = ycck;
      const RgbImage image = Decoded(MakeJpeg(source));
      ASSERT_EQ(image.pixels.size(), 3u * 16 * 16);
      for (size_t c = 0; c < 3; ++c) {
        const double expected = ink[3] - (255 - ink[c]) * ink[3] / 255.0;
        EXPECT_NEAR(image.pixels[c], expected, ycck ? 2 : 1)
            << c << " of " << ink[0] << (ycck ? " ycck" : "");
      }
    }
  }
}

TEST(ImageDecoderTest, WebpIsLosslessOrClose) {
  const Bytes rgb = Gradient(33, 20, 3);
  Bytes rgba;
  for (size_t i = 0; i < rgb.size(); i += 3) {
    rgba.insert(rgba.end(), rgb.begin() + static_cast<ptrdiff_t>(i),
                rgb.begin() + static_cast<ptrdiff_t>(i) + 3);
    rgba.push_back(255);
  }
  EXPECT_EQ(Decoded(MakeWebp(33, 20, rgba)).pixels, rgb);
  const std::string lossy = EncodeImage({33, 20, rgb}, ImageFormat::kWebp).value();
  EXPECT_LT(MeanDifference(Decoded(lossy).pixels, rgb), 4);
}

// --- Orientation. ---

// 3 x 2 pixels, named a to f row by row; grey levels 10 to 60.
constexpr absl::string_view kUpright[] = {"",       "abcdef", "cbafed", "fedcba", "defabc",
                                          "adbecf", "daebfc", "fcebda", "cfbead"};

std::string Letters(const RgbImage& image, int32_t cell) {
  std::string letters;
  for (int32_t y = cell / 2; y < image.height; y += cell) {
    for (int32_t x = cell / 2; x < image.width; x += cell) {
      const size_t at =
          3 * (static_cast<size_t>(y) * static_cast<size_t>(image.width) + static_cast<size_t>(x));
      letters.push_back(static_cast<char>('a' + (image.pixels[at] + 5) / 10 - 1));
    }
  }
  return letters;
}

TEST(ImageDecoderTest, EveryOrientationOfEveryFormat) {
  constexpr int32_t kCell = 16;  // pixels a side, so that JPEG keeps the cells flat
  Bytes grey;
  Bytes rgba;
  for (int32_t y = 0; y < 2 * kCell; ++y) {
    for (int32_t x = 0; x < 3 * kCell; ++x) {
      const auto level = static_cast<uint8_t>(10 * (1 + x / kCell + y / kCell * 3));
      grey.push_back(level);
      for (const uint8_t v : {level, level, level, uint8_t{255}}) rgba.push_back(v);
    }
  }
  for (int orientation = 1; orientation <= 8; ++orientation) {
    const std::string exif = MakeExif(orientation, orientation % 2 == 0);
    const std::string png = MakePng({3 * kCell, 2 * kCell, 8, 0, grey});
    JpegSource jpeg{3 * kCell, 2 * kCell, 1, grey};
    jpeg.exif = exif;
    const std::string webp = MakeWebp(3 * kCell, 2 * kCell, rgba);
    for (const std::string& file : {WithPngChunk(png, "eXIf", exif), MakeJpeg(jpeg),
                                    WithWebpChunk(webp, 3 * kCell, 2 * kCell, 0x08, "EXIF", exif)}) {
      SCOPED_TRACE(absl::StrCat(orientation, " in ", file.substr(0, 4)));
      const RgbImage image = Decoded(file);
      EXPECT_EQ(image.width, (orientation < 5 ? 3 : 2) * kCell);
      EXPECT_EQ(Letters(image, kCell), kUpright[orientation]);
    }
  }
}

TEST(ExifOrientationTest, NonsenseMeansUpright) {
  const std::string good = MakeExif(6, true);
  EXPECT_EQ(ExifOrientation(good), 6);
  EXPECT_EQ(ExifOrientation(absl::StrCat(absl::string_view("Exif\0\0", 6), good)), 6);
  EXPECT_EQ(ExifOrientation(""), 1);
  EXPECT_EQ(ExifOrientation(MakeExif(0, true)), 1);
  EXPECT_EQ(ExifOrientation(MakeExif(9, false)), 1);
  for (size_t length = 0; length < good.size() - 6; ++length) {
    EXPECT_EQ(ExifOrientation(good.substr(0, length)), 1) << length;
  }
  std::string far = good;
  far[4] = '\xff';  // the directory lies beyond the end
  EXPECT_EQ(ExifOrientation(far), 1);
  std::string many = good;
  many[8] = '\xff';  // more entries than there is room for: those that exist are read
  EXPECT_EQ(ExifOrientation(many), 6);
  std::string other_type = good;
  other_type[8 + 2 + 12 + 3] = 4;
  EXPECT_EQ(ExifOrientation(other_type), 1);
}

// --- What is refused. ---

std::vector<std::string> OneOfEach() {
  const Bytes rgb = Gradient(40, 20, 3);
  const RgbImage image{40, 20, rgb};
  JpegSource progressive{40, 20, 3, rgb};
  progressive.progressive = true;
  PngSource interlaced{40, 20, 8, 2, rgb};
  interlaced.interlaced = true;
  const std::string lossless = MakeWebp(40, 20, Gradient(40, 20, 4));
  return {EncodeImage(image, ImageFormat::kPng).value(),
          MakePng(interlaced),
          EncodeImage(image, ImageFormat::kJpeg).value(),
          MakeJpeg(progressive),
          EncodeImage(image, ImageFormat::kWebp).value(),
          lossless,
          WithWebpChunk(lossless, 40, 20, 0x18, "EXIF", MakeExif(3, true))};
}

TEST(ImageDecoderTest, EveryTruncationIsRefused) {
  for (const std::string& file : OneOfEach()) {
    ASSERT_TRUE(DecodeImage(file, {}).ok());
    for (size_t length = 0; length < file.size(); ++length) {
      EXPECT_THAT(DecodeImage(file.substr(0, length), {}), Fails(absl::StatusCode::kInvalidArgument, _))
          << file.substr(0, 4) << " of " << length << " bytes";
    }
  }
}

TEST(ImageDecoderTest, WhateverFollowsTheEndIsIgnored) {
  for (const std::string& file : OneOfEach()) EXPECT_TRUE(DecodeImage(absl::StrCat(file, "more"), {}).ok());
}

TEST(ImageDecoderTest, DamageNeverDoesMoreThanFail) {
  std::mt19937 random(1);
  const std::vector<std::string> files = OneOfEach();
  int refused = 0;
  for (int round = 0; round < 7000; ++round) {
    std::string damaged = files[static_cast<size_t>(round) % files.size()];
    for (int i = 0; i < 3; ++i) damaged[random() % damaged.size()] = static_cast<char>(random());
    const auto image = DecodeImage(damaged, {200, 20'000, 100'000});
    if (!image.ok()) {
      ++refused;
      EXPECT_THAT(image, Fails(absl::StatusCode::kInvalidArgument, _));
    }
  }
  EXPECT_GT(refused, 2000);
}

TEST(ImageDecoderTest, LimitsAreCheckedOnTheHeader) {
  for (const std::string& file : OneOfEach()) {
    EXPECT_TRUE(DecodeImage(file, {40, 800, file.size()}).ok());
    EXPECT_THAT(
        DecodeImage(file, {39, 800, file.size()}),
        Fails(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr("40 x 20"), HasSubstr("39 a side"))));
    EXPECT_THAT(
        DecodeImage(file, {40, 799, file.size()}),
        Fails(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr("40 x 20"), HasSubstr("799 in all"))));
    EXPECT_THAT(
        DecodeImage(file, {40, 800, file.size() - 1}),
        Fails(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr(absl::StrCat(file.size(), " bytes")),
                                                        HasSubstr(absl::StrCat(file.size() - 1)))));
  }
}

// A few bytes that promise terabytes.
TEST(ImageDecoderTest, BombsAreRefusedUnread) {
  std::string header(13, '\0');
  header.replace(0, 8, "\x7f\xff\xff\xff\x7f\xff\xff\xff");
  header[8] = 16;
  header[9] = 6;
  const std::string png = absl::StrCat("\x89PNG\r\n\x1a\n", PngChunk("IHDR", header), PngChunk("IEND", ""));
  EXPECT_THAT(DecodeImage(png, {}),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("2147483647 x 2147483647")));

  std::string jpeg = MakeJpeg({16, 16, 1, Gradient(16, 16, 1)});
  const size_t frame = jpeg.find("\xff\xc0");
  ASSERT_NE(frame, std::string::npos);
  jpeg.replace(frame + 5, 4, "\xff\xdc\xff\xdc");
  EXPECT_THAT(DecodeImage(jpeg, {}), Fails(absl::StatusCode::kInvalidArgument, HasSubstr("65500 x 65500")));
}

TEST(ImageDecoderTest, AbsurdChunksAreRefused) {
  std::string png = MakePng({1, 1, 8, 2, {1, 2, 3}});
  png.replace(33, 4, "\xff\xff\xff\xff");  // the length of the first chunk after the header
  EXPECT_THAT(DecodeImage(png, {}),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("claims 4294967295 bytes")));

  std::string no_header = MakePng({1, 1, 8, 2, {1, 2, 3}});
  no_header.replace(12, 4, "tEXt");
  EXPECT_THAT(DecodeImage(no_header, {}), Fails(absl::StatusCode::kInvalidArgument, HasSubstr("header")));

  std::string webp = MakeWebp(2, 2, Bytes(16, 9));
  webp.replace(16, 4, "\xff\xff\xff\x7f");
  EXPECT_THAT(DecodeImage(webp, {}), Fails(absl::StatusCode::kInvalidArgument, HasSubstr("WebP")));
}

TEST(ImageDecoderTest, AnimationsAreRefused) {
  const std::string apng = WithPngChunk(MakePng({1, 1, 8, 2, {1, 2, 3}}), "acTL", std::string(8, '\1'));
  EXPECT_THAT(DecodeImage(apng, {}), Fails(absl::StatusCode::kInvalidArgument, HasSubstr("animated")));
  const std::string webp =
      WithWebpChunk(MakeWebp(2, 2, Bytes(16, 9)), 2, 2, 0x02, "ANIM", std::string(6, '\0'));
  EXPECT_THAT(DecodeImage(webp, {}), Fails(absl::StatusCode::kInvalidArgument, HasSubstr("animated")));
}

TEST(ImageDecoderTest, JpegWithScansWithoutEndIsRefused) {
  JpegSource source{16, 16, 3, Gradient(16, 16, 3)};
  source.separate_scans = true;
  const std::string jpeg = MakeJpeg(source);
  const size_t last_scan = jpeg.rfind("\xff\xda");
  ASSERT_NE(last_scan, std::string::npos);
  const std::string scan = jpeg.substr(last_scan, jpeg.size() - 2 - last_scan);
  const auto repeated = [&](int times) {
    std::string file = jpeg.substr(0, last_scan);
    for (int i = 0; i < times; ++i) file += scan;
    return file + "\xff\xd9";
  };
  EXPECT_TRUE(DecodeImage(repeated(50), {}).ok());
  EXPECT_THAT(DecodeImage(repeated(200), {}),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("more than 100 scans")));
}

TEST(ImageDecoderTest, OtherFilesAreRefused) {
  EXPECT_THAT(DecodeImage("", {}), Fails(absl::StatusCode::kInvalidArgument, HasSubstr("empty")));
  EXPECT_THAT(DecodeImage("GIF89a..", {}),
              Fails(absl::StatusCode::kInvalidArgument,
                    AllOf(HasSubstr("PNG, JPEG or WebP"), HasSubstr("474946383961"))));
  EXPECT_THAT(DecodeImage(MakeJpeg({16, 16, 2, Gradient(16, 16, 2)}), {}),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("2 colour components")));
}

}  // namespace
}  // namespace lancet
