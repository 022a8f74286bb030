#include "tests/coordinator/request/picture_files.h"

#include <gtest/gtest.h>
#include <png.h>
#include <webp/encode.h>
#include <zlib.h>

#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "coordinator/request/jpeg_errors.h"

namespace lancet {
namespace {

std::string Number(uint64_t value, int bytes, bool big_endian) {
  std::string text;
  for (int i = 0; i < bytes; ++i) {
    const int shift = 8 * (big_endian ? bytes - 1 - i : i);
    text.push_back(static_cast<char>(value >> shift & 0xff));
  }
  return text;
}

std::string WebpChunk(absl::string_view type, absl::string_view content) {
  return absl::StrCat(type, Number(content.size(), 4, false), content, std::string(content.size() % 2, '\0'));
}

}  // namespace

std::string MakePng(const PngSource& source) {
  std::string bytes;
  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr, nullptr);
  png_infop info = png_create_info_struct(png);
  png_set_write_fn(
      png, &bytes,
      [](png_structp writer, png_bytep data, size_t size) {
        static_cast<std::string*>(png_get_io_ptr(writer))->append(reinterpret_cast<char*>(data), size);
      },
      [](png_structp) {});
  png_set_IHDR(png, info, static_cast<png_uint_32>(source.width), static_cast<png_uint_32>(source.height),
               source.depth, source.colour_type, source.interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE,
               PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  if (!source.palette.empty()) {
    png_set_PLTE(png, info, reinterpret_cast<png_const_colorp>(source.palette.data()),
                 static_cast<int>(source.palette.size() / 3));
  }
  if (!source.palette_alpha.empty()) {
    png_set_tRNS(png, info, source.palette_alpha.data(), static_cast<int>(source.palette_alpha.size()),
                 nullptr);
  } else if (source.transparent_value >= 0) {
    const auto value = static_cast<png_uint_16>(source.transparent_value);
    const png_color_16 colour{0, value, value, value, value};
    png_set_tRNS(png, info, nullptr, 0, &colour);
  }
  png_write_info(png, info);
  const size_t stride = png_get_rowbytes(png, info);
  EXPECT_EQ(source.rows.size(), stride * static_cast<size_t>(source.height));
  std::vector<png_bytep> rows;
  for (size_t y = 0; y < static_cast<size_t>(source.height); ++y) {
    rows.push_back(const_cast<png_bytep>(source.rows.data()) + y * stride);
  }
  png_write_image(png, rows.data());
  png_write_end(png, info);
  png_destroy_write_struct(&png, &info);
  return bytes;
}

std::string PngChunk(absl::string_view type, absl::string_view content) {
  const std::string body = absl::StrCat(type, content);
  const uLong crc = crc32_z(0, reinterpret_cast<const Bytef*>(body.data()), body.size());
  return absl::StrCat(Number(content.size(), 4, true), body, Number(crc, 4, true));
}

std::string WithPngChunk(const std::string& png, absl::string_view type, absl::string_view content) {
  constexpr size_t kAfterHeader = 8 + 25;
  return absl::StrCat(png.substr(0, kAfterHeader), PngChunk(type, content), png.substr(kAfterHeader));
}

std::string MakeJpeg(const JpegSource& source) {
  JpegErrors errors;
  jpeg_compress_struct codec{};
  codec.err = &errors.manager;
  unsigned char* data = nullptr;
  unsigned long size = 0;  // NOLINT(google-runtime-int): libjpeg's type
  if (setjmp(errors.escape) != 0) {
    ADD_FAILURE() << errors.message;
    return {};
  }
  jpeg_create_compress(&codec);
  jpeg_mem_dest(&codec, &data, &size);
  codec.image_width = static_cast<JDIMENSION>(source.width);
  codec.image_height = static_cast<JDIMENSION>(source.height);
  codec.input_components = source.channels;
  constexpr J_COLOR_SPACE kSpaces[] = {JCS_UNKNOWN, JCS_GRAYSCALE, JCS_UNKNOWN, JCS_RGB, JCS_CMYK};
  codec.in_color_space = kSpaces[source.channels];
  jpeg_set_defaults(&codec);
  if (source.ycck) jpeg_set_colorspace(&codec, JCS_YCCK);
  jpeg_set_quality(&codec, 100, TRUE);
  if (source.channels > 1) {
    codec.comp_info[0].h_samp_factor = source.chroma_step;
    codec.comp_info[0].v_samp_factor = source.chroma_step;
  }
  const jpeg_scan_info scans[] = {{1, {0}, 0, 63, 0, 0}, {1, {1}, 0, 63, 0, 0}, {1, {2}, 0, 63, 0, 0}};
  if (source.separate_scans) {
    codec.scan_info = scans;
    codec.num_scans = 3;
  }
  if (source.progressive) jpeg_simple_progression(&codec);
  jpeg_start_compress(&codec, TRUE);
  if (!source.exif.empty()) {
    const std::string content = absl::StrCat(absl::string_view("Exif\0\0", 6), source.exif);
    jpeg_write_marker(&codec, JPEG_APP0 + 1, reinterpret_cast<const JOCTET*>(content.data()),
                      static_cast<unsigned>(content.size()));
  }
  while (codec.next_scanline < codec.image_height) {
    const uint8_t* row = source.pixels.data() + static_cast<size_t>(source.channels) * codec.next_scanline *
                                                    static_cast<size_t>(source.width);
    JSAMPROW rows[] = {const_cast<JSAMPROW>(row)};
    jpeg_write_scanlines(&codec, rows, 1);
  }
  jpeg_finish_compress(&codec);
  jpeg_destroy_compress(&codec);
  std::string bytes(reinterpret_cast<const char*>(data), size);
  std::free(data);
  return bytes;
}

std::string MakeWebp(int32_t width, int32_t height, const std::vector<uint8_t>& rgba) {
  uint8_t* data = nullptr;
  const size_t size = WebPEncodeLosslessRGBA(rgba.data(), width, height, 4 * width, &data);
  std::string bytes(reinterpret_cast<const char*>(data), size);
  WebPFree(data);
  return bytes;
}

std::string WithWebpChunk(const std::string& webp, int32_t width, int32_t height, uint8_t flags,
                          absl::string_view type, absl::string_view content) {
  const std::string canvas =
      absl::StrCat(Number(flags, 4, false), Number(static_cast<uint64_t>(width - 1), 3, false),
                   Number(static_cast<uint64_t>(height - 1), 3, false));
  const std::string body =
      absl::StrCat("WEBP", WebpChunk("VP8X", canvas), webp.substr(12), WebpChunk(type, content));
  return absl::StrCat("RIFF", Number(body.size(), 4, false), body);
}

std::string MakeExif(int orientation, bool big_endian) {
  const auto number = [big_endian](uint64_t value, int bytes) { return Number(value, bytes, big_endian); };
  std::string exif = absl::StrCat(big_endian ? "MM" : "II", number(42, 2), number(8, 4), number(2, 2));
  absl::StrAppend(&exif, number(0x0100, 2), number(4, 2), number(1, 4), number(640, 4));  // the width
  absl::StrAppend(&exif, number(0x0112, 2), number(3, 2), number(1, 4),
                  number(static_cast<uint64_t>(orientation), 2), number(0, 2));
  return absl::StrCat(exif, number(0, 4));
}

}  // namespace lancet
