#include "client/inline_image.h"

#include <png.h>

#include <cstring>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/sixel.h"
#include "common/rgb_image.h"
#include "common/status_macros.h"

namespace lancet {
namespace {

constexpr uint32_t kMaxSide = 4096;

absl::StatusOr<RgbImage> DecodePng(absl::string_view bytes) {
  png_image png;
  std::memset(&png, 0, sizeof(png));
  png.version = PNG_IMAGE_VERSION;
  const absl::Cleanup free_png = [&png] { png_image_free(&png); };
  if (!png_image_begin_read_from_memory(&png, bytes.data(), bytes.size())) {
    return absl::InvalidArgumentError(absl::StrCat("not a PNG file: ", png.message));
  }
  if (png.width > kMaxSide || png.height > kMaxSide) {
    return absl::InvalidArgumentError(
        absl::StrCat("picture of ", png.width, " x ", png.height, "; the limit is ", kMaxSide, " a side"));
  }
  png.format = PNG_FORMAT_RGB;
  RgbImage image;
  image.width = static_cast<int32_t>(png.width);
  image.height = static_cast<int32_t>(png.height);
  image.pixels.resize(PNG_IMAGE_SIZE(png));
  if (!png_image_finish_read(&png, nullptr, image.pixels.data(), 0, nullptr)) {
    return absl::InvalidArgumentError(absl::StrCat("damaged PNG file: ", png.message));
  }
  return image;
}

// Data comes in base64, in chunks of at most 4096 characters; all but the last say m=1.
std::string KittySequence(absl::string_view png) {
  constexpr size_t kChunk = 4096;
  const std::string encoded = absl::Base64Escape(png);
  std::string out;
  for (size_t begin = 0; begin == 0 || begin < encoded.size(); begin += kChunk) {
    const bool more = begin + kChunk < encoded.size();
    // a=T: transmit and show; f=100: PNG; q=2: no answer wanted.
    absl::StrAppend(&out, "\x1b_G", begin == 0 ? "a=T,f=100,q=2," : "", "m=", more ? 1 : 0, ";",
                    encoded.substr(begin, kChunk), "\x1b\\");
  }
  return out;
}

std::string Iterm2Sequence(absl::string_view png) {
  return absl::StrCat("\x1b]1337;File=inline=1;size=", png.size(), ":", absl::Base64Escape(png), "\x07");
}

// A DA1 answer is ESC [ ? class ; attribute ; ... c; attribute 4 is sixel.
bool SaysSixel(absl::string_view reply) {
  const size_t begin = reply.find("\x1b[?");
  if (begin == absl::string_view::npos) return false;
  reply.remove_prefix(begin + 3);
  const size_t end = reply.find('c');
  if (end == absl::string_view::npos) return false;
  for (const absl::string_view attribute : absl::StrSplit(reply.substr(0, end), ';')) {
    if (attribute == "4") return true;
  }
  return false;
}

}  // namespace

absl::StatusOr<std::string> InlineImage(absl::string_view png, InlineProtocol protocol) {
  std::string out;
  switch (protocol) {
    case InlineProtocol::kKitty:
      out = KittySequence(png);
      break;
    case InlineProtocol::kIterm2:
      out = Iterm2Sequence(png);
      break;
    case InlineProtocol::kSixel: {
      LANCET_ASSIGN_OR_RETURN(const RgbImage image, DecodePng(png));
      out = EncodeSixel(image);
      break;
    }
  }
  out += '\n';
  return out;
}

bool KnownByName(const TerminalHints& hints) {
  // Multiplexers swallow graphics; what the terminal around them can do does not help.
  return absl::StartsWith(hints.term, "screen") || absl::StartsWith(hints.term, "tmux") ||
         hints.term == "dumb" || !hints.kitty_window_id.empty() || hints.term == "xterm-kitty" ||
         hints.term == "xterm-ghostty" || hints.term_program == "ghostty" ||
         hints.term_program == "iTerm.app" || hints.term_program == "WezTerm";
}

absl::StatusOr<InlineProtocol> DetectInlineProtocol(const TerminalHints& hints) {
  const absl::Status cannot = absl::UnavailableError(absl::StrCat(
      "this terminal (TERM=", hints.term,
      ") is not known to show pictures; --show=kitty, --show=iterm2 or --show=sixel forces one way"));
  if (absl::StartsWith(hints.term, "screen") || absl::StartsWith(hints.term, "tmux") ||
      hints.term == "dumb") {
    return cannot;
  }
  if (!hints.kitty_window_id.empty() || hints.term == "xterm-kitty" || hints.term == "xterm-ghostty" ||
      hints.term_program == "ghostty") {
    return InlineProtocol::kKitty;
  }
  if (hints.term_program == "iTerm.app" || hints.term_program == "WezTerm") return InlineProtocol::kIterm2;
  if (SaysSixel(hints.da1_reply)) return InlineProtocol::kSixel;
  return cannot;
}

}  // namespace lancet
