#include "coordinator/request/image_codec.h"

#include <png.h>
#include <webp/encode.h>

#include <cstddef>
#include <cstdlib>
#include <memory>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "coordinator/request/jpeg_errors.h"

namespace lancet {
namespace {

constexpr int32_t kMaxEncodedSide = 16383;
constexpr int kQuality = 90;

absl::Status CheckImage(const RgbImage& image, int32_t max_side) {
  if (image.width < 1 || image.height < 1 || image.width > max_side || image.height > max_side) {
    return absl::InvalidArgumentError(absl::StrCat("picture of ", image.width, " x ", image.height,
                                                   " pixels; a side must be from 1 to ", max_side));
  }
  const size_t expected = size_t{3} * static_cast<size_t>(image.width) * static_cast<size_t>(image.height);
  if (image.pixels.size() != expected) {
    return absl::InvalidArgumentError(absl::StrCat("picture of ", image.width, " x ", image.height, " has ",
                                                   image.pixels.size(), " bytes, expected ", expected));
  }
  return absl::OkStatus();
}

// --- PNG: libpng's simplified interface, which reports errors by value and never jumps. ---

struct PngImage {
  PngImage() { image.version = PNG_IMAGE_VERSION; }
  ~PngImage() { png_image_free(&image); }
  PngImage(const PngImage&) = delete;
  PngImage& operator=(const PngImage&) = delete;

  png_image image{};
};

absl::StatusOr<std::string> EncodePng(const RgbImage& source) {
  PngImage png;
  png.image.width = static_cast<png_uint_32>(source.width);
  png.image.height = static_cast<png_uint_32>(source.height);
  png.image.format = PNG_FORMAT_RGB;
  png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(png.image);
  std::string bytes(size, '\0');
  if (png_image_write_to_memory(&png.image, bytes.data(), &size, /*convert_to_8_bit=*/0, source.pixels.data(),
                                /*row_stride=*/0, /*colormap=*/nullptr) == 0) {
    return absl::InternalError(absl::StrCat("PNG encoder: ", png.image.message));
  }
  bytes.resize(size);
  return bytes;
}

// --- JPEG: libjpeg leaves by longjmp. The functions that may be left so hold nothing with a destructor; what
// they work on belongs to their callers. ---

struct JpegCompressor {
  JpegCompressor() { codec.err = &errors.manager; }
  ~JpegCompressor() {
    jpeg_destroy_compress(&codec);
    std::free(data);  // libjpeg's memory destination allocates by malloc
  }
  JpegCompressor(const JpegCompressor&) = delete;
  JpegCompressor& operator=(const JpegCompressor&) = delete;

  jpeg_compress_struct codec{};
  JpegErrors errors;
  unsigned char* data = nullptr;
  unsigned long size = 0;  // NOLINT(google-runtime-int): libjpeg's type
};

// False if libjpeg reported an error.
bool Compress(JpegCompressor& jpeg, const RgbImage& image) {
  if (setjmp(jpeg.errors.escape) != 0) return false;
  jpeg_create_compress(&jpeg.codec);
  jpeg_mem_dest(&jpeg.codec, &jpeg.data, &jpeg.size);
  jpeg.codec.image_width = static_cast<JDIMENSION>(image.width);
  jpeg.codec.image_height = static_cast<JDIMENSION>(image.height);
  jpeg.codec.input_components = 3;
  jpeg.codec.in_color_space = JCS_RGB;
  jpeg_set_defaults(&jpeg.codec);
  jpeg_set_quality(&jpeg.codec, kQuality, TRUE);
  jpeg.codec.comp_info[0].h_samp_factor = 1;  // 4:4:4
  jpeg.codec.comp_info[0].v_samp_factor = 1;
  jpeg_start_compress(&jpeg.codec, TRUE);
  while (jpeg.codec.next_scanline < jpeg.codec.image_height) {
    const uint8_t* row = image.pixels.data() + size_t{3} * jpeg.codec.next_scanline * jpeg.codec.image_width;
    JSAMPROW rows[] = {const_cast<JSAMPROW>(row)};  // libjpeg only reads it
    jpeg_write_scanlines(&jpeg.codec, rows, 1);
  }
  jpeg_finish_compress(&jpeg.codec);
  return true;
}

absl::StatusOr<std::string> EncodeJpeg(const RgbImage& image) {
  JpegCompressor jpeg;
  if (!Compress(jpeg, image)) return absl::InternalError(absl::StrCat("JPEG encoder: ", jpeg.errors.message));
  return std::string(reinterpret_cast<const char*>(jpeg.data), jpeg.size);
}

// --- WebP. ---

absl::StatusOr<std::string> EncodeWebp(const RgbImage& image) {
  uint8_t* data = nullptr;
  const size_t size = WebPEncodeRGB(image.pixels.data(), image.width, image.height, 3 * image.width,
                                    static_cast<float>(kQuality), &data);
  const std::unique_ptr<uint8_t, void (*)(void*)> owner(data, WebPFree);
  if (size == 0) return absl::InternalError("WebP encoder failed");
  return std::string(reinterpret_cast<const char*>(data), size);
}

}  // namespace

absl::string_view ImageFormatName(ImageFormat format) {
  switch (format) {
    case ImageFormat::kPng:
      return "png";
    case ImageFormat::kJpeg:
      return "jpeg";
    case ImageFormat::kWebp:
      return "webp";
  }
  return "unknown";
}

absl::StatusOr<std::string> EncodeImage(const RgbImage& image, ImageFormat format) {
  LANCET_RETURN_IF_ERROR(CheckImage(image, kMaxEncodedSide));
  switch (format) {
    case ImageFormat::kPng:
      return EncodePng(image);
    case ImageFormat::kJpeg:
      return EncodeJpeg(image);
    case ImageFormat::kWebp:
      return EncodeWebp(image);
  }
  return absl::InvalidArgumentError(absl::StrCat("unknown image format ", static_cast<int>(format)));
}

}  // namespace lancet
