#include "common/checkpoint.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "common/bf16_state_dict.h"
#include "common/fingerprint.h"
#include "common/mapped_file.h"
#include "common/safetensors.h"
#include "common/sharded_state_dict.h"
#include "common/status_macros.h"
#include "common/trunk_layout.h"

namespace lancet {
namespace {

namespace fs = std::filesystem;

constexpr absl::string_view kTrunkFile = "nvfp4_state_dict.safetensors";
constexpr absl::string_view kSourceFiles[] = {"model.safetensors", "model.safetensors.index.json"};
constexpr absl::string_view kBaseFolder = "Lance_3B";
constexpr absl::string_view kTrunkFolder = "Lance_3B-NVFP4";
constexpr absl::string_view kVisionFolder = "Qwen2.5-VL-ViT";
// llm_config.json, lancet.json and the tower's config.json have a few kB; nvfp4_meta.json 60 kB for 3B.
constexpr size_t kMaxConfigBytes = size_t{4} << 20;
constexpr size_t kMaxMetaBytes = size_t{64} << 20;

std::string Join(const std::string& folder, absl::string_view name) {
  return (fs::path(folder) / std::string(name)).string();
}

bool IsFile(const std::string& path) {
  std::error_code error;
  return fs::is_regular_file(path, error);
}

// The first of `candidates` that is a file; empty if none is.
std::string FirstFile(const std::vector<std::string>& candidates) {
  const auto it = std::find_if(candidates.begin(), candidates.end(), IsFile);
  return it == candidates.end() ? std::string() : *it;
}

// Folders of the unquantised model, which hold the small files. Quantised ones are named after it.
std::vector<std::string> BaseFolders(const std::string& trunk_dir) {
  std::vector<std::string> folders;
  const std::string name = fs::path(trunk_dir).filename().string();
  absl::string_view base = name;
  if (absl::ConsumeSuffix(&base, "-NVFP4") && !base.empty()) folders.push_back(std::string(base));
  if (folders.empty() || folders.front() != kBaseFolder) folders.push_back(std::string(kBaseFolder));
  return folders;
}

absl::Status NotFound(absl::string_view what, const std::vector<std::string>& looked_at) {
  return absl::NotFoundError(absl::StrCat(what, " not found; looked at ", absl::StrJoin(looked_at, ", ")));
}

// Sub-folders of model_dir that hold a trunk, sorted.
std::vector<std::string> TrunksInSubfolders(const std::string& model_dir) {
  std::vector<std::string> found;
  std::error_code error;
  fs::directory_iterator it(model_dir, fs::directory_options::skip_permission_denied, error);
  for (; !error && it != fs::directory_iterator(); it.increment(error)) {
    std::string candidate = Join(it->path().string(), kTrunkFile);
    if (IsFile(candidate)) found.push_back(std::move(candidate));
  }
  std::sort(found.begin(), found.end());
  return found;
}

absl::StatusOr<std::string> ResolveTrunk(const std::string& model_dir) {
  std::vector<std::string> looked_at = {Join(Join(model_dir, kTrunkFolder), kTrunkFile),
                                        Join(model_dir, kTrunkFile)};
  std::string found = FirstFile(looked_at);
  if (!found.empty()) return found;
  const std::vector<std::string> others = TrunksInSubfolders(model_dir);
  if (others.size() == 1) return others.front();
  if (others.size() > 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        model_dir, " holds several trunks: ", absl::StrJoin(others, ", "), "; choose one with --trunk"));
  }
  std::vector<std::string> sources;
  for (const std::string& folder : {Join(model_dir, kBaseFolder), model_dir}) {
    for (const absl::string_view file : kSourceFiles) sources.push_back(Join(folder, file));
  }
  found = FirstFile(sources);
  if (!found.empty()) return found;
  looked_at.push_back(Join(Join(model_dir, "*"), kTrunkFile));
  looked_at.insert(looked_at.end(), sources.begin(), sources.end());
  return NotFound("the trunk (--trunk)", looked_at);
}

absl::StatusOr<std::unique_ptr<StateDict>> OpenTrunk(const std::string& path) {
  if (absl::EndsWith(path, ".json")) return ShardedStateDict::Open(path);
  return SafetensorsFile::Open(path);
}

// The tower's two files: each beside the other or in its folder below model_dir.
absl::Status ResolveVision(CheckpointPaths& paths) {
  const std::string folder = paths.model_dir.empty() ? "" : Join(paths.model_dir, kVisionFolder);
  const auto find = [&](const std::string& sibling, absl::string_view file) {
    std::vector<std::string> candidates;
    if (!sibling.empty()) candidates.push_back(Join(fs::path(sibling).parent_path().string(), file));
    if (!folder.empty()) candidates.push_back(Join(folder, file));
    return FirstFile(candidates);
  };
  if (paths.vit_config.empty()) paths.vit_config = find(paths.vit, "config.json");
  if (paths.vit.empty()) paths.vit = find(paths.vit_config, "vit.safetensors");
  if (paths.vit_config.empty() && !paths.vit.empty()) {
    return NotFound("config.json of the vision tower (--vit_config)",
                    {Join(fs::path(paths.vit).parent_path().string(), "config.json")});
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CheckpointPaths> ResolveCheckpoint(const CheckpointPaths& overrides) {
  CheckpointPaths paths = overrides;
  const std::string& dir = paths.model_dir;
  const bool needs_dir = paths.trunk.empty() || paths.llm_config.empty() || paths.vocab.empty() ||
                         paths.merges.empty() || paths.tokenizer_config.empty() || paths.vae.empty();
  std::error_code error;
  if (dir.empty() && needs_dir) return absl::InvalidArgumentError("--model_dir is not set");
  if (!dir.empty() && !fs::is_directory(dir, error)) {
    return absl::NotFoundError(absl::StrCat("--model_dir ", dir, ": is not a folder"));
  }
  if (paths.trunk.empty()) {
    LANCET_ASSIGN_OR_RETURN(paths.trunk, ResolveTrunk(dir));
  }
  const std::string trunk_dir = fs::path(paths.trunk).parent_path().string();
  if (paths.trunk_meta.empty()) paths.trunk_meta = FirstFile({Join(trunk_dir, "nvfp4_meta.json")});

  struct Companion {
    const char* file;
    const char* flag;
    std::string CheckpointPaths::*path;
  };
  for (const Companion& companion :
       {Companion{"llm_config.json", "--llm_config", &CheckpointPaths::llm_config},
        Companion{"vocab.json", "--vocab", &CheckpointPaths::vocab},
        Companion{"merges.txt", "--merges", &CheckpointPaths::merges},
        Companion{"tokenizer_config.json", "--tokenizer_config", &CheckpointPaths::tokenizer_config}}) {
    std::string& path = paths.*companion.path;
    if (!path.empty()) continue;
    std::vector<std::string> looked_at = {Join(trunk_dir, companion.file)};
    if (!dir.empty()) {
      looked_at.push_back(Join(dir, companion.file));
      for (const std::string& base : BaseFolders(trunk_dir)) {
        looked_at.push_back(Join(Join(dir, base), companion.file));
      }
    }
    path = FirstFile(looked_at);
    if (path.empty()) return NotFound(absl::StrCat(companion.file, " (", companion.flag, ")"), looked_at);
  }
  if (paths.vae.empty()) {
    const std::vector<std::string> looked_at = {Join(dir, "Wan2.2_VAE.safetensors"),
                                                Join(dir, "Wan2.2_VAE.pth")};
    paths.vae = FirstFile(looked_at);
    if (paths.vae.empty()) return NotFound("the autoencoder (--vae)", looked_at);
  }
  LANCET_RETURN_IF_ERROR(ResolveVision(paths));
  if (paths.lancet_json.empty() && !dir.empty()) paths.lancet_json = FirstFile({Join(dir, "lancet.json")});
  return paths;
}

// Opens and checks the tower, if there is one. Returns the text of its config.
absl::StatusOr<std::string> Checkpoint::OpenVision() {
  if (paths_.vit_config.empty()) return std::string();
  LANCET_ASSIGN_OR_RETURN(std::string config_json, ReadTextFile(paths_.vit_config, kMaxConfigBytes));
  LANCET_ASSIGN_OR_RETURN(vision_config_, ParseVisionConfig(config_json, paths_.vit_config));
  if (vision_config_->out_hidden_size != config_.hidden_size) {
    return absl::InvalidArgumentError(
        absl::StrCat(paths_.vit_config, ": out_hidden_size is ", vision_config_->out_hidden_size,
                     "; expected ", config_.hidden_size, " (hidden_size of ", paths_.llm_config, ")"));
  }
  if (!paths_.vit.empty()) {
    LANCET_ASSIGN_OR_RETURN(vision_file_, SafetensorsFile::Open(paths_.vit));
  }
  vision_ = std::make_unique<VisionTower>(trunk(), vision_file_.get());
  LANCET_RETURN_IF_ERROR(CheckVisionTower(*vision_, *vision_config_));
  return config_json;
}

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(const CheckpointPaths& paths) {
  auto checkpoint = std::unique_ptr<Checkpoint>(new Checkpoint());
  checkpoint->paths_ = paths;
  LANCET_ASSIGN_OR_RETURN(const std::string config_json, ReadTextFile(paths.llm_config, kMaxConfigBytes));
  LANCET_ASSIGN_OR_RETURN(checkpoint->config_, ParseModelConfig(config_json, paths.llm_config));
  const ModelConfig& config = checkpoint->config_;
  if (!paths.lancet_json.empty()) {
    LANCET_ASSIGN_OR_RETURN(const std::string card_json, ReadTextFile(paths.lancet_json, kMaxConfigBytes));
    LANCET_ASSIGN_OR_RETURN(checkpoint->card_, ParseModelCard(card_json, paths.lancet_json));
  }
  if (checkpoint->card_.name.empty()) {
    checkpoint->card_.name = fs::path(paths.trunk).parent_path().filename().string();
  }

  LANCET_ASSIGN_OR_RETURN(checkpoint->trunk_file_, OpenTrunk(paths.trunk));
  const StateDict& file = *checkpoint->trunk_file_;
  LANCET_RETURN_IF_ERROR(CheckTrunkLayout(file, config));
  if (IsSource(file, config)) checkpoint->rounded_trunk_ = std::make_unique<Bf16StateDict>(&file);
  if (!paths.trunk_meta.empty()) {
    LANCET_ASSIGN_OR_RETURN(const std::string meta_json, ReadTextFile(paths.trunk_meta, kMaxMetaBytes));
    LANCET_ASSIGN_OR_RETURN(checkpoint->trunk_meta_,
                            ParseTrunkMeta(meta_json, paths.trunk_meta, config, &file));
  }
  LANCET_ASSIGN_OR_RETURN(checkpoint->vae_, OpenStateDict(paths.vae));
  LANCET_ASSIGN_OR_RETURN(checkpoint->vae_layout_, CheckVae(*checkpoint->vae_));
  LANCET_ASSIGN_OR_RETURN(const std::string vision_json, checkpoint->OpenVision());
  LANCET_RETURN_IF_ERROR(CheckTrunkValues(file, config, checkpoint->trunk_meta_));
  LANCET_ASSIGN_OR_RETURN(
      checkpoint->fingerprint_,
      CheckpointFingerprint(file, *checkpoint->vae_, config_json, checkpoint->vision_.get(), vision_json));
  return checkpoint;
}

}  // namespace lancet
