// A Lance checkpoint as users have it on disk: where its files are, and all of them opened and checked before
// use.
//
// --model_dir names a folder such as a download holds:
//   nvfp4_state_dict.safetensors and nvfp4_meta.json, the quantised trunk:
//       in Lance_3B-NVFP4/, in the folder itself, or in its only sub-folder that has it
//   failing that, the trunk before quantisation: model.safetensors or model.safetensors.index.json with its
//   files, in
//       Lance_3B/ or in the folder itself; BF16, F32 or F16
//   llm_config.json, vocab.json, merges.txt, tokenizer_config.json:
//       beside the trunk, in the folder, or in the trunk's folder without "-NVFP4" (Lance_3B/)
//   Wan2.2_VAE.safetensors or, failing that, Wan2.2_VAE.pth: in the folder
//   Qwen2.5-VL-ViT/config.json and vit.safetensors, optional: the vision tower, which reads pictures. Its
//       tensors may also be in the trunk's file, as "vit_model.*"; those win. Without config.json there is no
//       tower, and the checkpoint draws from text alone.
//   lancet.json, optional: in the folder
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/model_config.h"
#include "common/state_dict.h"
#include "common/trunk_check.h"
#include "common/vae_check.h"
#include "common/vision_config.h"
#include "common/vision_tower.h"

namespace lancet {

// Resolved paths. An override that is set is taken as it is; the rest is searched for below model_dir.
struct CheckpointPaths {
  std::string model_dir;
  std::string trunk;             // nvfp4_state_dict.safetensors, or one before quantisation
  std::string trunk_meta;        // nvfp4_meta.json; may be absent (empty) if every name is complete
  std::string llm_config;        // llm_config.json
  std::string vocab;             // vocab.json
  std::string merges;            // merges.txt
  std::string tokenizer_config;  // tokenizer_config.json
  std::string vae;               // Wan2.2_VAE.{safetensors,pth}
  std::string vit_config;        // config.json of the vision tower; empty if there is none
  std::string vit;               // vit.safetensors; may be empty if the trunk holds every tensor of the tower
  std::string lancet_json;       // lancet.json; empty if there is none
};

// Fills in every path that `overrides` leaves empty. NotFound names what is missing and where it was looked
// for.
absl::StatusOr<CheckpointPaths> ResolveCheckpoint(const CheckpointPaths& overrides);

// Opened and checked files of one model. Thread-safe after Open.
class Checkpoint {
 public:
  // Maps the files and checks them: header rules, names, element types, shapes, block size, meta, values of
  // the scales. The first missing or odd tensor is named. Sizes come from llm_config.json and must be the
  // tensors'. Reads, besides headers, the block scales (0.7 GB of a 5 GB checkpoint) and samples of the rest.
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const CheckpointPaths& paths);

  const CheckpointPaths& paths() const { return paths_; }
  const ModelConfig& config() const { return config_; }
  const ModelCard& card() const { return card_; }
  // The trunk as the engine reads it: names as in the file; of a trunk before quantisation everything in
  // bf16.
  const StateDict& trunk() const { return rounded_trunk_ != nullptr ? *rounded_trunk_ : *trunk_file_; }
  // The trunk as its file holds it.
  const StateDict& trunk_file() const { return *trunk_file_; }
  // Of its meta file; empty without one.
  const TrunkMeta& trunk_meta() const { return trunk_meta_; }
  const StateDict& vae() const { return *vae_; }
  const VaeLayout& vae_layout() const { return vae_layout_; }
  // The vision tower; null if the checkpoint has none.
  const VisionTower* vision() const { return vision_.get(); }
  // Set if and only if there is a tower.
  const std::optional<VisionConfig>& vision_config() const { return vision_config_; }
  // 32 hex digits (fingerprint.h). The same on every host that has the same files.
  const std::string& fingerprint() const { return fingerprint_; }

 private:
  Checkpoint() = default;
  absl::StatusOr<std::string> OpenVision();

  CheckpointPaths paths_;
  ModelConfig config_;
  ModelCard card_;
  std::unique_ptr<StateDict> trunk_file_;
  std::unique_ptr<StateDict> rounded_trunk_;  // over trunk_file_, of a trunk before quantisation; else null
  TrunkMeta trunk_meta_;
  std::unique_ptr<StateDict> vae_;
  VaeLayout vae_layout_;
  std::optional<VisionConfig> vision_config_;
  std::unique_ptr<StateDict> vision_file_;
  std::unique_ptr<VisionTower> vision_;  // over the trunk and vision_file_
  std::string fingerprint_;
};

}  // namespace lancet
