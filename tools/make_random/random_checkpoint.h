// Writes a whole checkpoint of random weights, in the layout of the public release.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "tools/make_random/random_dims.h"

namespace lancet {

struct RandomCheckpointOptions {
  uint64_t seed = 1;
  int threads = 1;
};

// Makes below `folder`, which is made if need be:
//   Lance_3B-NVFP4/{nvfp4_state_dict.safetensors,nvfp4_meta.json}
//   Lance_3B/{llm_config.json,vocab.json,merges.txt,tokenizer_config.json}
//   Qwen2.5-VL-ViT/{vit.safetensors,config.json}
//   Wan2.2_VAE.pth
// Bytes depend on dims and seed alone. Memory: a few MB for each thread. AlreadyExists if the folder holds
// a trunk: weights that somebody may want are not written over. Errors name the file.
absl::Status WriteRandomCheckpoint(const std::string& folder, const RandomDims& dims,
                                   const RandomCheckpointOptions& options);

// Bytes that WriteRandomCheckpoint writes, without the small files.
int64_t RandomCheckpointBytes(const RandomDims& dims);

}  // namespace lancet
