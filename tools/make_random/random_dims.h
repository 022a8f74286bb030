// Sizes of the checkpoints that lancet-make-random writes.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/model_config.h"
#include "common/vision_config.h"

namespace lancet {

struct RandomDims {
  ModelConfig trunk;
  int32_t base_tokens = 0;  // of the tokenizer; 22 added ones follow, then unused rows of the tables
  VisionConfig vision;
  // Widths of the autoencoder's stages are multiples of these.
  int64_t vae_encoder_base = 0;
  int64_t vae_decoder_base = 0;
};

// "3b", the release, or "small", the same layout as small as it goes, for tests. InvalidArgument for other
// names.
absl::StatusOr<RandomDims> RandomDimsByName(absl::string_view name);

}  // namespace lancet
