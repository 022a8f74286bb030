// PNG, by libpng. The chunks are walked first: that finds the size, EXIF data wherever it stands, animations
// (which libpng does not know), and files that end early.

#include <png.h>

#include <algorithm>
#include <csetjmp>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/quote.h"
#include "common/status_macros.h"
#include "coordinator/request/decode_formats.h"
#include "coordinator/request/exif_orientation.h"

namespace lancet {
namespace {

constexpr size_t kSignatureBytes = 8;
constexpr size_t kChunkOverhead = 12;  // u32 length, type of 4 bytes, then the content, then u32 CRC
constexpr size_t kHeaderBytes = 13;

absl::Status Failure(absl::string_view reason) {
  return absl::InvalidArgumentError(absl::StrCat("PNG: ", reason));
}

uint32_t ReadU32(absl::string_view bytes, size_t offset) {
  return png_get_uint_32(reinterpret_cast<png_const_bytep>(bytes.data()) + offset);
}

struct PngOutline {
  uint32_t width = 0;
  uint32_t height = 0;
  bool animated = false;
  absl::string_view exif;  // empty if there is none
};

absl::StatusOr<PngOutline> ReadOutline(absl::string_view bytes) {
  PngOutline outline;
  size_t at = kSignatureBytes;
  while (true) {
    const size_t left = bytes.size() - at;
    if (left < kChunkOverhead) return Failure("truncated: the end marker is missing");
    const uint32_t length = ReadU32(bytes, at);
    const absl::string_view type = bytes.substr(at + 4, 4);
    if (length > left - kChunkOverhead) {
      return Failure(absl::StrCat("truncated or damaged: chunk ", Quote(type), " claims ", length, " bytes, ",
                                  left - kChunkOverhead, " are left"));
    }
    const absl::string_view content = bytes.substr(at + 8, length);
    if (at == kSignatureBytes) {
      if (type != "IHDR" || length != kHeaderBytes) return Failure("does not begin with a header");
      outline.width = ReadU32(content, 0);
      outline.height = ReadU32(content, 4);
    } else if (type == "acTL") {
      outline.animated = true;
    } else if (type == "eXIf" && outline.exif.empty()) {
      outline.exif = content;
    } else if (type == "IEND") {
      return outline;
    }
    at += kChunkOverhead + length;
  }
}

// How the rows look that libpng hands over. All have 8 bits a channel, but kGrey16.
enum class RowFormat { kGrey, kGrey16, kGreyAlpha, kRgb, kRgba };

struct PngDecoder {
  PngDecoder() = default;
  ~PngDecoder() { png_destroy_read_struct(&png, &info, nullptr); }
  PngDecoder(const PngDecoder&) = delete;
  PngDecoder& operator=(const PngDecoder&) = delete;

  png_structp png = nullptr;
  png_infop info = nullptr;
  absl::string_view input;  // not yet read
  RowFormat format = RowFormat::kRgb;
  int passes = 1;  // more if interlaced
  jmp_buf escape{};
  std::string message = "no memory";  // of the error; libpng gives none when it cannot even begin
};

// libpng reports errors by a call that must not return. The functions that may be left so (those with setjmp)
// hold nothing with a destructor.
[[noreturn]] void OnPngError(png_structp png, png_const_charp message) {
  auto* decoder = static_cast<PngDecoder*>(png_get_error_ptr(png));
  decoder->message = message;
  longjmp(decoder->escape, 1);
}

void OnPngWarning(png_structp /*png*/, png_const_charp /*message*/) {}

void ReadInput(png_structp png, png_bytep data, size_t size) {
  auto* decoder = static_cast<PngDecoder*>(png_get_io_ptr(png));
  if (size > decoder->input.size()) png_error(png, "truncated");
  std::memcpy(data, decoder->input.data(), size);
  decoder->input.remove_prefix(size);
}

RowFormat ChooseFormat(PngDecoder& decoder) {
  const int depth = png_get_bit_depth(decoder.png, decoder.info);
  switch (png_get_color_type(decoder.png, decoder.info)) {
    case PNG_COLOR_TYPE_PALETTE:
      png_set_palette_to_rgb(decoder.png);
      if (png_get_valid(decoder.png, decoder.info, PNG_INFO_tRNS) == 0) return RowFormat::kRgb;
      png_set_tRNS_to_alpha(decoder.png);
      return RowFormat::kRgba;
    case PNG_COLOR_TYPE_GRAY:
      if (depth == 16) return RowFormat::kGrey16;
      png_set_expand_gray_1_2_4_to_8(decoder.png);
      return RowFormat::kGrey;
    case PNG_COLOR_TYPE_GRAY_ALPHA:
      if (depth == 16) {
        png_set_strip_16(decoder.png);
        return RowFormat::kGreyAlpha;
      }
      png_set_strip_alpha(decoder.png);
      return RowFormat::kGrey;
    case PNG_COLOR_TYPE_RGB_ALPHA:
      png_set_strip_16(decoder.png);
      return RowFormat::kRgba;
    default:
      png_set_strip_16(decoder.png);
      return RowFormat::kRgb;
  }
}

// False if libpng reported an error.
bool ReadHeader(PngDecoder& decoder, const DecodeLimits& limits) {
  if (setjmp(decoder.escape) != 0) return false;
  decoder.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &decoder, OnPngError, OnPngWarning);
  if (decoder.png == nullptr) return false;
  decoder.info = png_create_info_struct(decoder.png);
  if (decoder.info == nullptr) return false;
  const auto max_side = static_cast<png_uint_32>(limits.max_side);
  png_set_user_limits(decoder.png, max_side, max_side);
  // Everything but IHDR, PLTE, tRNS, IDAT and IEND is skipped unread: text, profiles, gamma.
  png_set_keep_unknown_chunks(decoder.png, PNG_HANDLE_CHUNK_NEVER, nullptr, -1);
  png_set_read_fn(decoder.png, &decoder, ReadInput);
  png_read_info(decoder.png, decoder.info);
  decoder.format = ChooseFormat(decoder);
  decoder.passes = png_set_interlace_handling(decoder.png);
  png_read_update_info(decoder.png, decoder.info);
  return true;
}

void ConvertRow(RowFormat format, const uint8_t* in, size_t width, uint8_t* out) {
  switch (format) {
    case RowFormat::kGrey:
      for (size_t x = 0; x < width; ++x) std::fill_n(out + 3 * x, 3, in[x]);
      break;
    case RowFormat::kGrey16:
      for (size_t x = 0; x < width; ++x) {
        std::fill_n(out + 3 * x, 3, in[2 * x] == 0 ? in[2 * x + 1] : uint8_t{255});
      }
      break;
    case RowFormat::kGreyAlpha:
      for (size_t x = 0; x < width; ++x) std::fill_n(out + 3 * x, 3, OverWhite(in[2 * x], in[2 * x + 1]));
      break;
    case RowFormat::kRgb:
      std::copy_n(in, 3 * width, out);
      break;
    case RowFormat::kRgba:
      for (size_t x = 0; x < width; ++x) {
        for (size_t c = 0; c < 3; ++c) out[3 * x + c] = OverWhite(in[4 * x + c], in[4 * x + 3]);
      }
      break;
  }
}

// `rows` holds one row as libpng hands it over, or all of them if the file is interlaced: each pass adds
// pixels to every row. False if libpng reported an error.
bool ReadRows(PngDecoder& decoder, std::vector<uint8_t>& rows, RgbImage& image) {
  if (setjmp(decoder.escape) != 0) return false;
  const size_t stride = png_get_rowbytes(decoder.png, decoder.info);
  const auto width = static_cast<size_t>(image.width);
  for (int pass = 1; pass <= decoder.passes; ++pass) {
    for (size_t y = 0; y < static_cast<size_t>(image.height); ++y) {
      uint8_t* row = rows.data() + (decoder.passes > 1 ? y * stride : 0);
      png_read_row(decoder.png, row, nullptr);
      if (pass == decoder.passes) ConvertRow(decoder.format, row, width, image.pixels.data() + y * 3 * width);
    }
  }
  png_read_end(decoder.png, nullptr);  // checks the last CRC
  return true;
}

}  // namespace

absl::StatusOr<DecodedFile> DecodePngFile(absl::string_view bytes, const DecodeLimits& limits) {
  LANCET_ASSIGN_OR_RETURN(const PngOutline outline, ReadOutline(bytes));
  LANCET_RETURN_IF_ERROR(CheckDimensions("PNG", outline.width, outline.height, limits));
  if (outline.animated) return Failure("animated; a single picture is needed");

  PngDecoder decoder;
  decoder.input = bytes;
  if (!ReadHeader(decoder, limits)) return Failure(decoder.message);
  const size_t stride = png_get_rowbytes(decoder.png, decoder.info);
  std::vector<uint8_t> rows(decoder.passes > 1 ? stride * outline.height : stride);
  DecodedFile file{BlankImage(outline.width, outline.height), ExifOrientation(outline.exif)};
  if (!ReadRows(decoder, rows, file.image)) return Failure(decoder.message);
  return file;
}

}  // namespace lancet
