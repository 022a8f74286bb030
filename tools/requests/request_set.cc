#include "tools/requests/request_set.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/json.h"
#include "common/mapped_file.h"
#include "common/quote.h"
#include "common/status_macros.h"
#include "coordinator/request/image_decoder.h"
#include "coordinator/request/preprocess.h"
#include "coordinator/request/resize_presets.h"

namespace lancet {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr size_t kMaxFileBytes = size_t{16} << 20;
constexpr size_t kMaxObjects = 64;
constexpr int64_t kMaxSide = 4096;
constexpr int32_t kMaxPromptTokens = 2048;

// One entry of a list, for messages and for its pictures.
class Entry {
 public:
  Entry(const json& object, std::string where, fs::path folder)
      : object_(object), where_(std::move(where)), folder_(std::move(folder)) {}

  absl::Status Error(absl::string_view what) const {
    return absl::InvalidArgumentError(absl::StrCat(where_, ": ", what));
  }
  bool Has(const char* key) const { return object_.contains(key); }
  absl::StatusOr<std::string> Text(const char* key) const {
    const auto found = object_.find(key);
    if (found == object_.end() || !found->is_string()) return Error(absl::StrCat("has no string ", key));
    return found->get<std::string>();
  }
  absl::StatusOr<int64_t> Number(const char* key, int64_t least, int64_t most, int64_t fallback) const {
    const auto found = object_.find(key);
    if (found == object_.end()) return fallback;
    const int64_t value = found->is_number_integer() ? found->get<int64_t>() : least - 1;
    if (value >= least && value <= most) return value;
    return Error(absl::StrCat(key, " is ", Quote(found->dump(), 40), "; expected ", least, " to ", most));
  }
  absl::StatusOr<RgbImage> Picture(const char* key) const {
    LANCET_ASSIGN_OR_RETURN(const std::string name, Text(key));
    LANCET_ASSIGN_OR_RETURN(const std::string bytes, ReadTextFile((folder_ / name).string(), kMaxFileBytes));
    absl::StatusOr<RgbImage> image = DecodeImage(bytes, DecodeLimits{});
    if (!image.ok()) return Error(absl::StrCat(key, " ", Quote(name), ": ", image.status().message()));
    return image;
  }
  absl::StatusOr<std::optional<Scene>> ReadScene() const {
    if (!Has("objects")) return std::nullopt;
    const json& objects = object_["objects"];
    if (!objects.is_array() || objects.size() > kMaxObjects) {
      return Error(absl::StrCat("objects is no list of at most ", kMaxObjects));
    }
    Scene scene;
    LANCET_ASSIGN_OR_RETURN(scene.background, Text("background"));
    for (const json& object : objects) {
      if (!object.is_object()) return Error("objects holds something else");
      const Entry entry(object, absl::StrCat(where_, ": objects"), folder_);
      SceneObject& out = scene.objects.emplace_back();
      LANCET_ASSIGN_OR_RETURN(out.name, entry.Text("name"));
      LANCET_ASSIGN_OR_RETURN(out.place, entry.Text("place"));
      const auto large = object.find("large");
      out.large = large != object.end() && large->is_boolean() && large->get<bool>();
    }
    return scene;
  }

 private:
  const json& object_;
  const std::string where_;
  const fs::path folder_;
};

class Loader {
 public:
  Loader(const Checkpoint& checkpoint, const RequestSetOptions& options, fs::path folder, RequestSet& set)
      : checkpoint_(checkpoint), options_(options), folder_(std::move(folder)), set_(set) {}

  absl::Status Prepare() {
    const CheckpointPaths& paths = checkpoint_.paths();
    LANCET_ASSIGN_OR_RETURN(auto tokenizer,
                            Tokenizer::Load({paths.vocab, paths.merges, paths.tokenizer_config}));
    LANCET_ASSIGN_OR_RETURN(
        set_.builder, PlanBuilder::Create({checkpoint_.config(), std::move(tokenizer), kMaxPromptTokens}));
    size_ = checkpoint_.card().default_size;
    if (options_.side != 0) size_ = {options_.side, options_.side};
    const double area = static_cast<double>(size_.width) * size_.height;
    const int32_t side = static_cast<int32_t>(std::lround(std::sqrt(area) / 16) * 16);
    LANCET_ASSIGN_OR_RETURN(preset_, ResizePresetOfSide(std::clamp(side, kMinPresetSide, kMaxPresetSide)));
    return absl::OkStatus();
  }

  absl::Status Add(const json& list, const std::string& source, const std::string& key) {
    if (!list.is_array())
      return absl::InvalidArgumentError(absl::StrCat(source, ": ", key, " is not a list"));
    if (key != "prompts" && checkpoint_.vision() == nullptr) return absl::OkStatus();
    size_t index = 0;
    for (const json& object : list) {
      if (index == options_.most) break;
      const std::string where = absl::StrCat(source, ": ", key, " ", index++);
      if (!object.is_object()) return absl::InvalidArgumentError(absl::StrCat(where, ": is not an object"));
      const Entry entry(object, where, folder_);
      const absl::Status added = key == "prompts" ? AddPrompt(entry)
                                 : key == "edits" ? AddEdit(entry)
                                                  : AddQuestion(entry);
      LANCET_RETURN_IF_ERROR(added);
    }
    return absl::OkStatus();
  }

 private:
  absl::Status AddPrompt(const Entry& entry) {
    SetRequest request;
    LANCET_ASSIGN_OR_RETURN(request.text, entry.Text("prompt"));
    CardSize size = size_;
    if (entry.Has("picture")) {
      LANCET_ASSIGN_OR_RETURN(request.ideal, entry.Picture("picture"));
      size = {request.ideal->width, request.ideal->height};
    }
    GenerateParams params;
    params.prompt = request.text;
    LANCET_ASSIGN_OR_RETURN(const int64_t width, entry.Number("width", 16, kMaxSide, size.width));
    LANCET_ASSIGN_OR_RETURN(const int64_t height, entry.Number("height", 16, kMaxSide, size.height));
    if (width % kPixelsPerLatent != 0 || height % kPixelsPerLatent != 0) {
      return entry.Error(absl::StrCat("is of ", width, " x ", height, " pixels; expected multiples of 16"));
    }
    params.width = static_cast<int32_t>(width);
    params.height = static_cast<int32_t>(height);
    LANCET_ASSIGN_OR_RETURN(params.seed, Seed(entry));
    params.sampler = options_.sampler;
    LANCET_ASSIGN_OR_RETURN(request.scene, entry.ReadScene());
    LANCET_ASSIGN_OR_RETURN(request.plan, set_.builder->Build(++id_, params));
    set_.pictures.push_back(std::move(request));
    return absl::OkStatus();
  }

  absl::Status AddEdit(const Entry& entry) {
    SetRequest request;
    LANCET_ASSIGN_OR_RETURN(request.text, entry.Text("instruction"));
    LANCET_ASSIGN_OR_RETURN(const RgbImage source, entry.Picture("source"));
    if (entry.Has("picture")) {
      LANCET_ASSIGN_OR_RETURN(request.ideal, entry.Picture("picture"));
    }
    if (entry.Has("kind")) {
      LANCET_ASSIGN_OR_RETURN(request.kind, entry.Text("kind"));
    }
    LANCET_ASSIGN_OR_RETURN(VisionCrop vision, PrepareForVision(source, preset_));
    LANCET_ASSIGN_OR_RETURN(LatentCrop condition, PrepareForLatents(source, preset_));
    EditParams params;
    params.instruction = request.text;
    LANCET_ASSIGN_OR_RETURN(params.seed, Seed(entry));
    params.sampler = options_.sampler;
    LANCET_ASSIGN_OR_RETURN(request.scene, entry.ReadScene());
    LANCET_ASSIGN_OR_RETURN(request.plan, set_.builder->BuildEdit(++id_, params, std::move(vision.image),
                                                                  std::move(condition.image)));
    set_.edits.push_back(std::move(request));
    return absl::OkStatus();
  }

  absl::Status AddQuestion(const Entry& entry) {
    SetRequest request;
    LANCET_ASSIGN_OR_RETURN(request.text, entry.Text("question"));
    LANCET_ASSIGN_OR_RETURN(const RgbImage picture, entry.Picture("picture"));
    if (entry.Has("right_answer")) {
      LANCET_ASSIGN_OR_RETURN(request.right_answer, entry.Text("right_answer"));
    }
    LANCET_ASSIGN_OR_RETURN(VisionCrop vision, PrepareForVision(picture, preset_));
    DescribeParams params;
    params.question = request.text;
    params.system_prompt = kDescribeSystem;
    params.max_new_tokens = options_.max_new_tokens;
    LANCET_ASSIGN_OR_RETURN(request.plan,
                            set_.builder->BuildDescribe(++id_, params, std::move(vision.image)));
    set_.questions.push_back(std::move(request));
    return absl::OkStatus();
  }

  absl::StatusOr<uint64_t> Seed(const Entry& entry) const {
    LANCET_ASSIGN_OR_RETURN(const int64_t seed,
                            entry.Number("seed", 0, INT64_MAX, static_cast<int64_t>(options_.seed)));
    return static_cast<uint64_t>(seed);
  }

  const Checkpoint& checkpoint_;
  const RequestSetOptions& options_;
  const fs::path folder_;
  RequestSet& set_;
  CardSize size_;
  ResizePreset preset_;
  uint64_t id_ = 0;
};

absl::StatusOr<json> ReadJson(const std::string& path) {
  LANCET_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path, kMaxFileBytes));
  return ParseJson(text, path);
}

}  // namespace

std::vector<const SetRequest*> RequestSet::All() const {
  std::vector<const SetRequest*> all;
  for (const auto* kind : {&pictures, &edits, &questions}) {
    for (const SetRequest& request : *kind) all.push_back(&request);
  }
  return all;
}

absl::StatusOr<RequestSet> LoadRequestSet(const Checkpoint& checkpoint, const std::string& path,
                                          const RequestSetOptions& options) {
  std::error_code error;
  const bool is_folder = fs::is_directory(path, error);
  RequestSet set;
  Loader loader(checkpoint, options, is_folder ? fs::path(path) : fs::path(path).parent_path(), set);
  LANCET_RETURN_IF_ERROR(loader.Prepare());
  json file;
  if (!is_folder) {
    LANCET_ASSIGN_OR_RETURN(file, ReadJson(path));
    if (!file.is_object()) return absl::InvalidArgumentError(absl::StrCat(path, ": is not an object"));
  }
  for (const char* key : {"prompts", "edits", "questions"}) {
    if (!is_folder) {
      if (file.contains(key)) LANCET_RETURN_IF_ERROR(loader.Add(file[key], path, key));
      continue;
    }
    const std::string part = (fs::path(path) / absl::StrCat(key, ".json")).string();
    if (!fs::is_regular_file(part, error)) continue;
    LANCET_ASSIGN_OR_RETURN(const json list, ReadJson(part));
    LANCET_RETURN_IF_ERROR(loader.Add(list, part, key));
  }
  if (set.All().empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": has no requests that this checkpoint can execute; expected prompts, edits or questions"));
  }
  return set;
}

}  // namespace lancet
