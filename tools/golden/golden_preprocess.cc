// From a picture's file to what the image encoders take: every byte must match.

#include <zlib.h>

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "common/vision_config.h"
#include "coordinator/request/preprocess.h"
#include "kernels/vae_ops.h"
#include "tools/golden/golden_runs.h"
#include "worker/model/vision/vision_patches.h"

namespace lancet {
namespace {

// Wrong entries among `total` compared ones, of one quantity over all pictures.
struct Tally {
  int64_t wrong = 0;
  int64_t total = 0;

  void Expect(bool equal) {
    ++total;
    wrong += equal ? 0 : 1;
  }
};

struct PreprocessTallies {
  Tally rgb;     // decoded pixels
  Tally sizes;   // of both crops
  Tally pixels;  // of both crops: CRC, corners, and the kept files
  Tally floats;  // the inputs of both encoders
};

template <typename T>
std::string Crc(const std::vector<T>& values) {
  const uLong crc = crc32_z(0, reinterpret_cast<const Bytef*>(values.data()), values.size() * sizeof(T));
  return absl::StrFormat("%08X", crc);
}

// The vision tower's input before it is rounded.
absl::StatusOr<std::vector<float>> AllPatches(const RgbImage& image) {
  const VisionConfig config;
  LANCET_ASSIGN_OR_RETURN(const PicturePatches patches, PicturePatches::Create(config, image));
  const int64_t count = patches.grid().patches();
  std::vector<float> values(count * config.patch_values());
  for (int64_t i = 0; i < count; ++i) patches.Fill(i, values.data() + i * config.patch_values());
  return values;
}

// `kept` is the picture's file name, empty if it was not kept.
absl::Status CompareCrop(const GoldenContext& context, const nlohmann::json& expected, const RgbImage& crop,
                         const std::vector<float>& floats, const std::string& kept,
                         PreprocessTallies& tallies) {
  tallies.sizes.Expect(expected.value("width", 0) == crop.width &&
                       expected.value("height", 0) == crop.height);
  tallies.pixels.Expect(expected.value("u8_crc", "") == Crc(crop.pixels));
  const auto first = expected["first"].get<std::vector<uint8_t>>();
  const auto last = expected["last"].get<std::vector<uint8_t>>();
  tallies.pixels.Expect(std::equal(first.begin(), first.end(), crop.pixels.begin()));
  tallies.pixels.Expect(std::equal(last.rbegin(), last.rend(), crop.pixels.rbegin()));
  if (!kept.empty()) {
    LANCET_ASSIGN_OR_RETURN(const RgbImage file, context.folder.Png(kept));
    tallies.pixels.Expect(file == crop);
  }
  tallies.floats.Expect(expected.value("float_crc", "") == Crc(floats));
  return absl::OkStatus();
}

absl::Status ComparePicture(const GoldenContext& context, const std::string& folder,
                            const nlohmann::json& item, PreprocessTallies& tallies) {
  const std::string name = item["name"].get<std::string>();
  const std::string path = absl::StrCat(folder, "/", item["file"].get<std::string>());
  LANCET_ASSIGN_OR_RETURN(const RgbImage image, context.folder.Png(path));
  tallies.rgb.Expect(item.value("rgb_crc", "") == Crc(image.pixels));
  LANCET_ASSIGN_OR_RETURN(const ResizePreset preset, FindResizePreset(item["preset"].get<std::string>()));
  const auto kept = [&](const char* stream) {
    return item.value("keep", 0) == 1 ? absl::StrCat(folder, "/", name, ".", stream, ".png") : std::string();
  };

  LANCET_ASSIGN_OR_RETURN(const LatentCrop latent, PrepareForLatents(image, preset));
  LANCET_ASSIGN_OR_RETURN(const std::vector<float> planes, ImageToPixels(latent.image));
  LANCET_RETURN_IF_ERROR(CompareCrop(context, item["vae"], latent.image, planes, kept("vae"), tallies));

  LANCET_ASSIGN_OR_RETURN(const VisionCrop vision, PrepareForVision(image, preset));
  LANCET_ASSIGN_OR_RETURN(const std::vector<float> patches, AllPatches(vision.image));
  return CompareCrop(context, item["vit"], vision.image, patches, kept("vit"), tallies);
}

}  // namespace

absl::Status RunPreprocessCase(const GoldenContext& context, const std::string& case_name) {
  LANCET_ASSIGN_OR_RETURN(const nlohmann::json golden,
                          context.folder.Json(absl::StrCat(case_name, "/", case_name)));
  PreprocessTallies tallies;
  for (const auto& item : golden["images"]) {
    LANCET_RETURN_IF_ERROR(ComparePicture(context, case_name, item, tallies));
  }
  context.report.AddExact(case_name, "rgb", tallies.rgb.wrong, tallies.rgb.total);
  context.report.AddExact(case_name, "crop sizes", tallies.sizes.wrong, tallies.sizes.total);
  context.report.AddExact(case_name, "crop pixels", tallies.pixels.wrong, tallies.pixels.total);
  context.report.AddExact(case_name, "encoder inputs", tallies.floats.wrong, tallies.floats.total);
  if (golden.contains("clips")) {
    context.report.AddSkipped(case_name, absl::StrCat(golden["clips"].size(), " clips: no task takes video"));
  }
  return absl::OkStatus();
}

}  // namespace lancet
