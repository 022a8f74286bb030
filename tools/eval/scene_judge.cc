#include "tools/eval/scene_judge.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <limits>

#include "absl/strings/str_cat.h"
#include "common/json_fields.h"
#include "common/mapped_file.h"
#include "common/quote.h"
#include "common/status_macros.h"
#include "coordinator/request/image_decoder.h"

namespace lancet {
namespace {

using nlohmann::json;

constexpr size_t kMaxFileBytes = size_t{16} << 20;
constexpr int kStrayLevels = 40;
constexpr double kStrayLimit = 0.03;
constexpr int64_t kMaxSide = 256;
constexpr int64_t kMaxPixels = 4096;
constexpr size_t kMaxNames = 4096;

// The numbers of a list of `count`, each from 0 to `most`.
absl::Status ReadNumbers(const JsonFields& fields, absl::string_view key, const json& value, size_t count,
                         int64_t most, absl::Span<int64_t> numbers) {
  if (!value.is_array() || value.size() != count)
    return fields.Error(key, absl::StrCat("is no list of ", count));
  for (size_t i = 0; i < count; ++i) {
    LANCET_ASSIGN_OR_RETURN(numbers[i], fields.CheckInt(value[i], key, 0, most));
  }
  return absl::OkStatus();
}

absl::StatusOr<const json*> ObjectOf(const JsonFields& fields, const char* key) {
  const json* value = fields.Find(key);
  if (value == nullptr || !value->is_object() || value->empty() || value->size() > kMaxNames) {
    return fields.Error(key, "is no object with entries");
  }
  return value;
}

uint8_t Median(std::vector<uint8_t>& values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

absl::StatusOr<SceneJudge> SceneJudge::Open(const std::string& path) {
  LANCET_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path, kMaxFileBytes));
  LANCET_ASSIGN_OR_RETURN(const json file, ParseConfigObject(text, path));
  const JsonFields fields(file, path);
  SceneJudge judge;
  LANCET_RETURN_IF_ERROR(fields.Int("version", 1, 1).status());
  const auto pixels = [&](const char* key, int64_t most, int& to) -> absl::Status {
    LANCET_ASSIGN_OR_RETURN(const int64_t value, fields.Int(key, 1, most));
    to = static_cast<int>(value);
    return absl::OkStatus();
  };
  int columns = 0;
  LANCET_RETURN_IF_ERROR(pixels("side", kMaxSide, judge.side_));
  LANCET_RETURN_IF_ERROR(pixels("columns", kMaxPixels, columns));
  LANCET_RETURN_IF_ERROR(pixels("small_px", kMaxPixels, judge.small_px_));
  LANCET_RETURN_IF_ERROR(pixels("large_px", kMaxPixels, judge.large_px_));
  LANCET_RETURN_IF_ERROR(pixels("edge_px", kMaxPixels, judge.edge_px_));
  LANCET_ASSIGN_OR_RETURN(const json* places, ObjectOf(fields, "places"));
  for (const auto& [name, value] : places->items()) {
    std::array<int64_t, 2> cell{};
    LANCET_RETURN_IF_ERROR(ReadNumbers(fields, "places", value, 2, 2, absl::MakeSpan(cell)));
    judge.places_[name] = {static_cast<int>(cell[0]), static_cast<int>(cell[1])};
  }
  LANCET_ASSIGN_OR_RETURN(const json* backgrounds, ObjectOf(fields, "backgrounds"));
  for (const auto& [name, value] : backgrounds->items()) {
    std::array<int64_t, 3> rgb{};
    LANCET_RETURN_IF_ERROR(ReadNumbers(fields, "backgrounds", value, 3, 255, absl::MakeSpan(rgb)));
    std::copy(rgb.begin(), rgb.end(), judge.backgrounds_[name].begin());
  }
  const json* names = fields.Find("names");
  if (names == nullptr || !names->is_array() || names->empty() || names->size() > kMaxNames) {
    return fields.Error("names", absl::StrCat("is no list of 1 to ", kMaxNames));
  }
  for (const json& name : *names) {
    if (!name.is_string()) return fields.Error("names", "has something else than strings");
    judge.names_.push_back(name.get<std::string>());
  }
  const json* sprites = fields.Find("sprites");
  if (sprites == nullptr || !sprites->is_string()) return fields.Error("sprites", "is no string");
  const std::string picture =
      (std::filesystem::path(path).parent_path() / sprites->get<std::string>()).string();
  LANCET_ASSIGN_OR_RETURN(const std::string bytes, ReadTextFile(picture, kMaxFileBytes));
  const absl::StatusOr<RgbImage> atlas = DecodeImage(bytes, DecodeLimits{});
  absl::Status read = atlas.ok() ? judge.ReadSprites(*atlas, columns) : atlas.status();
  if (!read.ok()) return absl::InvalidArgumentError(absl::StrCat(picture, ": ", read.message()));
  return judge;
}

absl::Status SceneJudge::ReadSprites(const RgbImage& atlas, int columns) {
  const int rows = (static_cast<int>(names_.size()) + columns - 1) / columns;
  if (atlas.width != 2 * columns * side_ || atlas.height != rows * side_) {
    return absl::InvalidArgumentError(absl::StrCat("is of ", atlas.width, " x ", atlas.height,
                                                   " pixels; expected ", 2 * columns * side_, " x ",
                                                   rows * side_));
  }
  const auto pixel = [&](int y, int x) {
    return atlas.pixels.data() + 3 * (static_cast<size_t>(y) * atlas.width + x);
  };
  for (size_t i = 0; i < names_.size(); ++i) {
    const int top = static_cast<int>(i) / columns * side_;
    const int left = static_cast<int>(i) % columns * side_;
    for (int y = top; y < top + side_; ++y) {
      for (int x = left; x < left + side_; ++x) {
        colours_.insert(colours_.end(), pixel(y, x), pixel(y, x) + 3);
        alphas_.push_back(static_cast<float>(pixel(y, x + columns * side_)[1]) / 255.0f);
      }
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<CropRect> SceneJudge::BoxOf(const RgbImage& picture, const SceneObject& object) const {
  const auto place = places_.find(object.place);
  if (place == places_.end())
    return absl::InvalidArgumentError(absl::StrCat("unknown place ", Quote(object.place)));
  const int side = object.large ? large_px_ : small_px_;
  const auto corner = [&](int cell, int length) {
    const int centre = cell == 0 ? edge_px_ : cell == 1 ? length / 2 : length - edge_px_;
    return centre - side / 2;
  };
  const CropRect box{corner(place->second[0], picture.width), corner(place->second[1], picture.height), side,
                     side};
  if (box.left < 0 || box.top < 0 || box.left + side > picture.width || box.top + side > picture.height) {
    return absl::InvalidArgumentError(absl::StrCat("a picture of ", picture.width, " x ", picture.height,
                                                   " pixels has no room for ", side, " at ",
                                                   Quote(object.place)));
  }
  return box;
}

absl::StatusOr<size_t> SceneJudge::Nearest(const RgbImage& picture, const CropRect& box,
                                           const Colour& background) const {
  LANCET_ASSIGN_OR_RETURN(const RgbImage square, CropAndResample(picture, box, side_, side_));
  const size_t pixels = static_cast<size_t>(side_) * side_;
  size_t nearest = 0;
  double least = std::numeric_limits<double>::infinity();
  for (size_t sprite = 0; sprite < names_.size(); ++sprite) {
    double distance = 0;
    for (size_t p = 0; p < pixels; ++p) {
      const size_t at = sprite * pixels + p;
      for (size_t c = 0; c < 3; ++c) {
        const float off =
            colours_[3 * at + c] + background[c] * (1.0f - alphas_[at]) - square.pixels[3 * p + c];
        distance += off * off;
      }
    }
    if (distance < least) {
      least = distance;
      nearest = sprite;
    }
  }
  return nearest;
}

absl::StatusOr<SceneVerdict> SceneJudge::Judge(const RgbImage& picture, const Scene& scene) const {
  const auto asked = backgrounds_.find(scene.background);
  if (asked == backgrounds_.end()) {
    return absl::InvalidArgumentError(absl::StrCat("unknown background ", Quote(scene.background)));
  }
  SceneVerdict verdict;
  verdict.right = true;
  std::vector<bool> inside(static_cast<size_t>(picture.width) * picture.height);
  for (const SceneObject& object : scene.objects) {
    if (std::find(names_.begin(), names_.end(), object.name) == names_.end()) {
      return absl::InvalidArgumentError(absl::StrCat("unknown object ", Quote(object.name)));
    }
    LANCET_ASSIGN_OR_RETURN(const CropRect box, BoxOf(picture, object));
    for (int32_t y = box.top; y < box.top + box.height; ++y) {
      std::fill_n(inside.begin() + static_cast<std::ptrdiff_t>(y) * picture.width + box.left, box.width,
                  true);
    }
    LANCET_ASSIGN_OR_RETURN(const size_t nearest, Nearest(picture, box, asked->second));
    verdict.seen.push_back(names_[nearest]);
    verdict.right &= names_[nearest] == object.name;
  }
  std::array<std::vector<uint8_t>, 3> outside;
  int64_t stray = 0;
  for (size_t i = 0; i < inside.size(); ++i) {
    if (inside[i]) continue;
    float farthest = 0;
    for (size_t c = 0; c < 3; ++c) {
      outside[c].push_back(picture.pixels[3 * i + c]);
      farthest = std::max(farthest, std::abs(outside[c].back() - asked->second[c]));
    }
    stray += farthest > kStrayLevels ? 1 : 0;
  }
  verdict.stray = static_cast<double>(stray) / static_cast<double>(std::max<size_t>(inside.size(), 1));
  if (outside[0].empty()) return absl::InvalidArgumentError("the scene leaves no background to judge");
  const Colour median = {static_cast<float>(Median(outside[0])), static_cast<float>(Median(outside[1])),
                         static_cast<float>(Median(outside[2]))};
  float least = std::numeric_limits<float>::infinity();
  for (const auto& [name, colour] : backgrounds_) {
    float distance = 0;
    for (size_t c = 0; c < 3; ++c) distance += (colour[c] - median[c]) * (colour[c] - median[c]);
    if (distance >= least) continue;
    least = distance;
    verdict.background = name;
  }
  verdict.right = verdict.right && verdict.background == scene.background && verdict.stray <= kStrayLimit;
  return verdict;
}

}  // namespace lancet
