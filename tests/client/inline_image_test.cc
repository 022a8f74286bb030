#include "client/inline_image.h"

#include <png.h>

#include <cstring>

#include "absl/strings/escaping.h"
#include "absl/strings/str_split.h"
#include "client/sixel.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lancet {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

RgbImage Solid(int width, int height, uint8_t r, uint8_t g, uint8_t b) {
  RgbImage image{
      .width = width, .height = height, .pixels = std::vector<uint8_t>(size_t{3} * width * height)};
  for (size_t i = 0; i < image.pixels.size(); ++i) image.pixels[i] = i % 3 == 0 ? r : i % 3 == 1 ? g : b;
  return image;
}

std::string EncodePng(const RgbImage& image) {
  png_image png;
  std::memset(&png, 0, sizeof(png));
  png.version = PNG_IMAGE_VERSION;
  png.width = static_cast<png_uint_32>(image.width);
  png.height = static_cast<png_uint_32>(image.height);
  png.format = PNG_FORMAT_RGB;
  png_alloc_size_t size = 0;
  png_image_write_to_memory(&png, nullptr, &size, 0, image.pixels.data(), 0, nullptr);
  std::string bytes(size, '\0');
  png_image_write_to_memory(&png, bytes.data(), &size, 0, image.pixels.data(), 0, nullptr);
  return bytes;
}

TEST(SixelTest, WritesColoursRunsAndBands) {
  // 5 x 7 red pixels: colour 5 * 36 = 180; a full band of six rows ('~' = 63 + 63), then one row ('@' = 63 +
  // 1).
  const std::string out = EncodeSixel(Solid(5, 7, 255, 0, 0));
  EXPECT_THAT(out, StartsWith("\x1bP0;1q\"1;1;5;7#0;2;0;0;0"));
  EXPECT_THAT(out, HasSubstr("#180;2;100;0;0"));
  EXPECT_THAT(out, EndsWith("#180!5~$-#180!5@$-\x1b\\"));
}

TEST(SixelTest, LeavesOutTrailingBlanks) {
  RgbImage image = Solid(4, 1, 255, 255, 255);
  image.pixels[0] = image.pixels[1] = image.pixels[2] = 0;
  // Black in column 0 only, white in columns 1 to 3.
  EXPECT_THAT(EncodeSixel(image), EndsWith("#0@$#215?@@@$-\x1b\\"));
}

TEST(SixelTest, DithersBetweenLevels) {
  // Grey 128 lies halfway between levels 2 and 3: both colours appear.
  const std::string out = EncodeSixel(Solid(8, 6, 128, 128, 128));
  EXPECT_THAT(out, HasSubstr("$#129"));  // 3 * 43
  EXPECT_THAT(out, HasSubstr("#86"));    // 2 * 43
}

TEST(SixelTest, EmptyPictureGivesNothing) { EXPECT_EQ(EncodeSixel(RgbImage()), ""); }

TEST(InlineImageTest, KittyChunksCarryTheWholeFile) {
  const std::string file(10000, 'x');
  const auto out = InlineImage(file, InlineProtocol::kKitty);
  ASSERT_TRUE(out.ok()) << out.status();
  EXPECT_THAT(*out, StartsWith("\x1b_Ga=T,f=100,q=2,m=1;"));
  EXPECT_THAT(*out, EndsWith("\x1b\\\n"));
  std::string encoded;
  int chunks = 0;
  for (const absl::string_view part : absl::StrSplit(*out, "\x1b\\")) {
    const size_t data = part.find(';');
    if (data == absl::string_view::npos) continue;
    ++chunks;
    EXPECT_LE(part.size() - data - 1, 4096u);
    encoded += std::string(part.substr(data + 1));
  }
  EXPECT_EQ(chunks, 4);
  std::string decoded;
  ASSERT_TRUE(absl::Base64Unescape(encoded, &decoded));
  EXPECT_EQ(decoded, file);
}

TEST(InlineImageTest, Iterm2SaysTheSize) {
  const auto out = InlineImage("abc", InlineProtocol::kIterm2);
  ASSERT_TRUE(out.ok());
  EXPECT_EQ(*out, "\x1b]1337;File=inline=1;size=3:YWJj\x07\n");
}

TEST(InlineImageTest, SixelDecodesThePng) {
  const RgbImage image = Solid(5, 7, 255, 0, 0);
  const auto out = InlineImage(EncodePng(image), InlineProtocol::kSixel);
  ASSERT_TRUE(out.ok()) << out.status();
  EXPECT_EQ(*out, EncodeSixel(image) + "\n");
}

TEST(InlineImageTest, SixelRejectsWhatIsNoPng) {
  EXPECT_EQ(InlineImage("no picture", InlineProtocol::kSixel).status().code(),
            absl::StatusCode::kInvalidArgument);
  std::string cut = EncodePng(Solid(64, 64, 1, 2, 3));
  cut.resize(cut.size() / 2);
  EXPECT_EQ(InlineImage(cut, InlineProtocol::kSixel).status().code(), absl::StatusCode::kInvalidArgument);
  const auto wide = InlineImage(EncodePng(Solid(4097, 1, 1, 2, 3)), InlineProtocol::kSixel);
  EXPECT_THAT(std::string(wide.status().message()), HasSubstr("4097 x 1; the limit is 4096"));
}

TEST(DetectInlineProtocolTest, GoesByNameThenByAnswer) {
  EXPECT_EQ(*DetectInlineProtocol({"xterm-kitty", "", "", ""}), InlineProtocol::kKitty);
  EXPECT_EQ(*DetectInlineProtocol({"xterm-256color", "", "1", ""}), InlineProtocol::kKitty);
  EXPECT_EQ(*DetectInlineProtocol({"xterm-256color", "ghostty", "", ""}), InlineProtocol::kKitty);
  EXPECT_EQ(*DetectInlineProtocol({"xterm-256color", "iTerm.app", "", ""}), InlineProtocol::kIterm2);
  EXPECT_EQ(*DetectInlineProtocol({"xterm-256color", "", "", "\x1b[?62;4;22c"}), InlineProtocol::kSixel);
  EXPECT_TRUE(KnownByName({"xterm-kitty", "", "", ""}));
  EXPECT_FALSE(KnownByName({"xterm-256color", "", "", ""}));
}

TEST(DetectInlineProtocolTest, DoesNotGuess) {
  for (const char* reply : {"", "\x1b[?62;22c", "\x1b[?64;14c", "\x1b[?62;4", "4c"}) {
    const auto protocol = DetectInlineProtocol({"xterm-256color", "", "", reply});
    EXPECT_EQ(protocol.status().code(), absl::StatusCode::kUnavailable) << absl::CEscape(reply);
  }
  // A multiplexer swallows pictures even if the terminal around it can show them.
  EXPECT_FALSE(DetectInlineProtocol({"tmux-256color", "iTerm.app", "1", ""}).ok());
}

}  // namespace
}  // namespace lancet
