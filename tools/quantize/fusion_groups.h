// Which Linears of a trunk share an input, and the norm in front of it, into which factors per channel can be
// folded.
#pragma once

#include <string>
#include <vector>

#include "common/model_config.h"
#include "common/trunk_layout.h"

namespace lancet {

struct FusionGroup {
  std::string norm;                  // "...layers.3.input_layernorm_moe_gen", or empty: nothing to fold into
  std::vector<TrunkLinear> linears;  // q, k and v; gate and up; o or down alone
};

// Every Linear once, four groups per expert and layer, in the order of layers.
std::vector<FusionGroup> FusionGroups(const ModelConfig& config);

}  // namespace lancet
