// The folder that a quantised checkpoint is released in, complete at once or not at all:
//   OUTPUT/Lance_3B-NVFP4/nvfp4_state_dict.safetensors, nvfp4_meta.json
//   OUTPUT/Lance_3B/llm_config.json, vocab.json, merges.txt, tokenizer_config.json, …
//   OUTPUT/Qwen2.5-VL-ViT/…, OUTPUT/Wan2.2_VAE.*, OUTPUT/lancet.json
// The two files of the trunk are written to a folder with another name, which gets its own when both are on
// the disk. Companions are linked, or copied where the file system does not link.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tools/quantize/source_files.h"

namespace lancet {

class ReleaseFolder {
 public:
  // AlreadyExists if OUTPUT has a quantised trunk. FailedPrecondition while another program writes one there;
  // what such a program left when it was killed is removed.
  static absl::StatusOr<std::unique_ptr<ReleaseFolder>> Create(const std::string& output);
  // Removes what was written, unless Publish has been called.
  ~ReleaseFolder();
  ReleaseFolder(const ReleaseFolder&) = delete;
  ReleaseFolder& operator=(const ReleaseFolder&) = delete;

  // Where to write the state dict.
  std::string state_dict() const { return partial_ + "/nvfp4_state_dict.safetensors"; }

  // Links the source's companions that OUTPUT lacks. Returns what there is none of, for messages.
  absl::StatusOr<std::vector<std::string>> AddCompanions(const SourceFiles& source) const;
  // Writes nvfp4_meta.json and gives the folder its name.
  absl::Status Publish(const std::string& meta_json);

 private:
  ReleaseFolder(std::string output, std::string partial, int lock)
      : output_(std::move(output)), partial_(std::move(partial)), lock_(lock) {}

  const std::string output_;
  const std::string partial_;
  const int lock_;  // descriptor of partial_
  bool published_ = false;
};

}  // namespace lancet
