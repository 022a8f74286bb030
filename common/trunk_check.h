// Checks a trunk file against the model's sizes and its meta file before anything is computed from it.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "common/model_config.h"
#include "common/state_dict.h"

namespace lancet {

// Names, element types and shapes of everything that trunk_layout.h lists; no unquantised form of a quantised
// linear beside it. Other tensors are allowed: latent_pos_embed.* is recomputed, vit_model.* is the
// vision tower's (vision_tower.h). InvalidArgument names the first tensor that is missing or odd.
absl::Status CheckTrunkLayout(const StateDict& trunk, const ModelConfig& config);

// nvfp4_meta.json: block size 16, the known scheme and code table, and one entry per quantised linear whose
// shape is the tensors'. InvalidArgument names the field or weight.
absl::Status CheckTrunkMeta(const std::string& json_text, const std::string& source_name,
                            const ModelConfig& config);

// Reads every scales_bf16 (1/8 byte a weight; under a second for 3B) and the first row of every code matrix.
// Scales are finite and positive; in at least nine of ten blocks the largest code is 7, since a block's scale
// is defined by its largest weight: fewer mean another code table. CheckTrunkLayout has passed.
absl::Status CheckTrunkValues(const StateDict& trunk, const ModelConfig& config);

}  // namespace lancet
