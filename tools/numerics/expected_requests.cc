#include "tools/numerics/expected_requests.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/json.h"
#include "common/mapped_file.h"
#include "common/status_macros.h"
#include "coordinator/request/image_decoder.h"
#include "coordinator/request/preprocess.h"
#include "coordinator/request/resize_presets.h"

namespace lancet {
namespace {

constexpr size_t kMaxFileBytes = size_t{16} << 20;
constexpr int32_t kMaxPromptTokens = 2048;
constexpr int32_t kMaxNewTokens = 64;
constexpr uint64_t kSeed = 42;
constexpr char kPreset[] = "image_256res";

absl::StatusOr<RgbImage> ReadPicture(const std::string& path) {
  LANCET_ASSIGN_OR_RETURN(const std::string bytes, ReadTextFile(path, kMaxFileBytes));
  return DecodeImage(bytes, DecodeLimits{});
}

// The objects of a list of them; `keys` are strings in each.
absl::StatusOr<std::vector<nlohmann::json>> ReadEntries(const std::string& path, size_t most,
                                                        const std::vector<const char*>& keys) {
  LANCET_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path, kMaxFileBytes));
  LANCET_ASSIGN_OR_RETURN(const nlohmann::json all, ParseJson(text, path));
  if (!all.is_array()) return absl::InvalidArgumentError(absl::StrCat(path, ": is not a list"));
  std::vector<nlohmann::json> entries;
  for (const nlohmann::json& entry : all) {
    if (entries.size() == most) break;
    for (const char* key : keys) {
      if (!entry.is_object() || !entry.contains(key) || !entry[key].is_string()) {
        return absl::InvalidArgumentError(
            absl::StrCat(path, ": entry ", entries.size(), " has no string ", key));
      }
    }
    entries.push_back(entry);
  }
  return entries;
}

}  // namespace

absl::StatusOr<ExpectedRequests> LoadExpectedRequests(const Checkpoint& checkpoint, const std::string& folder,
                                                      size_t most, int32_t steps) {
  const auto path = [&](const std::string& file) { return absl::StrCat(folder, "/", file); };
  const CheckpointPaths& paths = checkpoint.paths();
  LANCET_ASSIGN_OR_RETURN(auto tokenizer,
                          Tokenizer::Load({paths.vocab, paths.merges, paths.tokenizer_config}));
  ExpectedRequests all;
  LANCET_ASSIGN_OR_RETURN(all.builder,
                          PlanBuilder::Create({checkpoint.config(), std::move(tokenizer), kMaxPromptTokens}));
  LANCET_ASSIGN_OR_RETURN(const ResizePreset preset, FindResizePreset(kPreset));
  uint64_t id = 0;

  LANCET_ASSIGN_OR_RETURN(const auto prompts, ReadEntries(path("prompts.json"), most, {"prompt", "picture"}));
  for (const nlohmann::json& entry : prompts) {
    ExpectedRequest& request = all.pictures.emplace_back();
    LANCET_ASSIGN_OR_RETURN(request.picture, ReadPicture(path(entry["picture"].get<std::string>())));
    GenerateParams params;
    params.prompt = entry["prompt"].get<std::string>();
    params.seed = kSeed;
    params.sampler.num_steps = steps;
    params.width = request.picture.width;
    params.height = request.picture.height;
    LANCET_ASSIGN_OR_RETURN(request.plan, all.builder->Build(++id, params));
  }
  LANCET_ASSIGN_OR_RETURN(const auto edits,
                          ReadEntries(path("edits.json"), most, {"instruction", "source", "picture"}));
  for (const nlohmann::json& entry : edits) {
    ExpectedRequest& request = all.edits.emplace_back();
    LANCET_ASSIGN_OR_RETURN(request.picture, ReadPicture(path(entry["picture"].get<std::string>())));
    LANCET_ASSIGN_OR_RETURN(const RgbImage source, ReadPicture(path(entry["source"].get<std::string>())));
    LANCET_ASSIGN_OR_RETURN(VisionCrop vision, PrepareForVision(source, preset));
    LANCET_ASSIGN_OR_RETURN(LatentCrop condition, PrepareForLatents(source, preset));
    EditParams params;
    params.instruction = entry["instruction"].get<std::string>();
    params.seed = kSeed;
    params.sampler.num_steps = steps;
    LANCET_ASSIGN_OR_RETURN(request.plan, all.builder->BuildEdit(++id, params, std::move(vision.image),
                                                                 std::move(condition.image)));
  }
  LANCET_ASSIGN_OR_RETURN(const auto questions,
                          ReadEntries(path("questions.json"), most, {"question", "picture", "right_answer"}));
  for (const nlohmann::json& entry : questions) {
    ExpectedRequest& request = all.questions.emplace_back();
    LANCET_ASSIGN_OR_RETURN(const RgbImage source, ReadPicture(path(entry["picture"].get<std::string>())));
    LANCET_ASSIGN_OR_RETURN(VisionCrop vision, PrepareForVision(source, preset));
    request.answer = entry["right_answer"].get<std::string>();
    DescribeParams params;
    params.question = entry["question"].get<std::string>();
    params.system_prompt = kDescribeSystem;
    params.max_new_tokens = kMaxNewTokens;
    LANCET_ASSIGN_OR_RETURN(request.plan, all.builder->BuildDescribe(++id, params, std::move(vision.image)));
  }
  return all;
}

}  // namespace lancet
