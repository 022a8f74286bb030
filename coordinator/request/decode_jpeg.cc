// JPEG, by libjpeg-turbo.

#include <cstdio>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "coordinator/request/decode_formats.h"
#include "coordinator/request/exif_orientation.h"
#include "coordinator/request/jpeg_errors.h"

namespace lancet {
namespace {

// Progressive files have about ten scans. Each costs a pass over the picture however few bytes it has.
constexpr int kMaxScans = 100;
constexpr int kExifMarker = JPEG_APP0 + 1;

void CheckScans(j_common_ptr codec) {
  const auto* decoder = reinterpret_cast<j_decompress_ptr>(codec);
  if (decoder->input_scan_number <= kMaxScans) return;
  auto* errors = reinterpret_cast<JpegErrors*>(codec->err);
  std::snprintf(errors->message, sizeof(errors->message), "more than %d scans", kMaxScans);
  longjmp(errors->escape, 1);
}

struct JpegDecoder {
  JpegDecoder() {
    codec.err = &errors.manager;
    monitor.progress_monitor = CheckScans;
  }
  ~JpegDecoder() { jpeg_destroy_decompress(&codec); }
  JpegDecoder(const JpegDecoder&) = delete;
  JpegDecoder& operator=(const JpegDecoder&) = delete;

  jpeg_decompress_struct codec{};
  JpegErrors errors;
  jpeg_progress_mgr monitor{};
};

// The functions with setjmp return false if libjpeg reported an error.
bool ReadHeader(JpegDecoder& jpeg, absl::string_view bytes) {
  if (setjmp(jpeg.errors.escape) != 0) return false;
  jpeg_create_decompress(&jpeg.codec);
  jpeg.codec.progress = &jpeg.monitor;
  jpeg_save_markers(&jpeg.codec, kExifMarker, 0xffff);
  jpeg_mem_src(&jpeg.codec, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
  jpeg_read_header(&jpeg.codec, TRUE);
  return true;
}

bool DecodeRgb(JpegDecoder& jpeg, RgbImage& image) {
  if (setjmp(jpeg.errors.escape) != 0) return false;
  jpeg.codec.out_color_space = JCS_RGB;
  jpeg_start_decompress(&jpeg.codec);
  while (jpeg.codec.output_scanline < jpeg.codec.output_height) {
    JSAMPROW rows[] = {image.pixels.data() +
                       size_t{3} * jpeg.codec.output_scanline * jpeg.codec.output_width};
    jpeg_read_scanlines(&jpeg.codec, rows, 1);
  }
  jpeg_finish_decompress(&jpeg.codec);
  return true;
}

// `row` holds 4 * width bytes.
bool DecodeCmyk(JpegDecoder& jpeg, std::vector<uint8_t>& row, RgbImage& image) {
  if (setjmp(jpeg.errors.escape) != 0) return false;
  jpeg.codec.out_color_space = JCS_CMYK;
  jpeg_start_decompress(&jpeg.codec);
  while (jpeg.codec.output_scanline < jpeg.codec.output_height) {
    uint8_t* out = image.pixels.data() + size_t{3} * jpeg.codec.output_scanline * jpeg.codec.output_width;
    JSAMPROW rows[] = {row.data()};
    jpeg_read_scanlines(&jpeg.codec, rows, 1);
    for (JDIMENSION x = 0; x < jpeg.codec.output_width; ++x) {
      const uint8_t* ink = row.data() + size_t{4} * x;  // inverted: 255 is no ink
      const uint32_t light = ink[3];
      for (int c = 0; c < 3; ++c) *out++ = static_cast<uint8_t>(light - DivideBy255((255 - ink[c]) * light));
    }
  }
  jpeg_finish_decompress(&jpeg.codec);
  return true;
}

int Orientation(const jpeg_decompress_struct& codec) {
  for (const jpeg_marker_struct* marker = codec.marker_list; marker != nullptr; marker = marker->next) {
    const absl::string_view data(reinterpret_cast<const char*>(marker->data), marker->data_length);
    if (absl::StartsWith(data, absl::string_view("Exif\0\0", 6))) return ExifOrientation(data);
  }
  return 1;
}

absl::Status Failure(const JpegDecoder& jpeg) {
  return absl::InvalidArgumentError(absl::StrCat("JPEG: ", jpeg.errors.message));
}

}  // namespace

absl::StatusOr<DecodedFile> DecodeJpegFile(absl::string_view bytes, const DecodeLimits& limits) {
  JpegDecoder jpeg;
  if (!ReadHeader(jpeg, bytes)) return Failure(jpeg);
  LANCET_RETURN_IF_ERROR(CheckDimensions("JPEG", jpeg.codec.image_width, jpeg.codec.image_height, limits));
  const int components = jpeg.codec.num_components;
  if (components != 1 && components != 3 && components != 4) {
    return absl::InvalidArgumentError(
        absl::StrCat("JPEG: ", components, " colour components; it must be 1, 3 or 4"));
  }
  DecodedFile file{BlankImage(jpeg.codec.image_width, jpeg.codec.image_height), Orientation(jpeg.codec)};
  bool done = false;
  if (components == 4) {
    std::vector<uint8_t> row(size_t{4} * jpeg.codec.image_width);
    done = DecodeCmyk(jpeg, row, file.image);
  } else {
    done = DecodeRgb(jpeg, file.image);
  }
  if (!done) return Failure(jpeg);
  return file;
}

}  // namespace lancet
