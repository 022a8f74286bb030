// The vision tower as plain f64 loops in the order of the input: no windows are permuted, a patch simply
// attends to those that share its window or frame. An oracle that shares no code with the encoder.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "common/vision_config.h"
#include "worker/model/vision/vision_layout.h"

namespace lancet {

using TowerWeights = std::map<std::string, std::vector<double>>;

// patches: [sum of t h w, patch_values]. `rounded_table`: rotary angles, cosines and sines in bf16, as the
// model has them. Returns [patches / cell_patches, out_hidden_size].
std::vector<double> RunTowerRef(const VisionConfig& config, const TowerWeights& weights,
                                const std::vector<double>& patches, const std::vector<VisionGrid>& grids,
                                bool rounded_table);

}  // namespace lancet
