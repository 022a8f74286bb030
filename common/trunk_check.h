// Checks a trunk file against the model's sizes and its meta file before anything is computed from it.
#pragma once

#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/model_config.h"
#include "common/state_dict.h"

namespace lancet {

// Names, element types and shapes of everything that trunk_layout.h lists; no unquantised form of a quantised
// linear beside it. Other tensors are allowed: latent_pos_embed.* is recomputed, vit_model.* is the
// vision tower's (vision_tower.h). InvalidArgument names the first tensor that is missing or odd. A trunk
// before quantisation (IsSource) may be F32 or F16.
absl::Status CheckTrunkLayout(const StateDict& trunk, const ModelConfig& config);

// What nvfp4_meta.json says beyond what the tensors do.
struct TrunkMeta {
  // By the linear's base name: the factor of its scales_fp8, where the file has them in two-level form,
  // scales_fp8 = E4M3(scales_bf16 / factor). Its codes were chosen with both kinds of scales in mind, so that
  // products that take E4M3 scales do best with this factor, or with a power of two times it. Published files
  // have none: there scales_fp8 are the scales themselves, rounded.
  absl::flat_hash_map<std::string, float> scale_factors;
};

// nvfp4_meta.json: block size 16, the known scheme and code table, and one entry per quantised linear whose
// shape is the tensors'; none for a linear that `trunk` holds unquantised (null: it holds none so).
// InvalidArgument names the field or weight.
absl::StatusOr<TrunkMeta> ParseTrunkMeta(const std::string& json_text, const std::string& source_name,
                                         const ModelConfig& config, const StateDict* trunk);

// Reads every scales_bf16 (1/8 byte a weight; under a second for 3B) and the first row of every code matrix.
// Scales are finite and positive; in at least nine of ten blocks the largest code is 7, or 7 or 6 in linears
// with a factor in `meta`: fewer mean another code table. (A block's scale is defined by its largest weight,
// or searched for, which never ends with a largest code below 6: half the scale would fit better.)
// CheckTrunkLayout has passed.
absl::Status CheckTrunkValues(const StateDict& trunk, const ModelConfig& config, const TrunkMeta& meta);

}  // namespace lancet
