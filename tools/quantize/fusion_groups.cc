#include "tools/quantize/fusion_groups.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace lancet {
namespace {

// The norm in front of a Linear: "L.self_attn.q_proj_moe_gen" -> "L.input_layernorm_moe_gen", "L.mlp.up_proj"
// -> "L.post_attention_layernorm"; empty for o and down, whose input no norm made.
std::string NormOf(const std::string& base) {
  const size_t name = base.rfind('.') + 1;
  const char* suffix = absl::StrContains(base, "_moe_gen") ? "_moe_gen" : "";
  const bool is_attention = absl::StrContains(base, ".self_attn.");
  if (absl::StartsWith(base.substr(name), is_attention ? "o_proj" : "down_proj")) return "";
  const std::string layer = base.substr(0, base.find(is_attention ? ".self_attn." : ".mlp") + 1);
  return absl::StrCat(layer, is_attention ? "input_layernorm" : "post_attention_layernorm", suffix);
}

}  // namespace

std::vector<FusionGroup> FusionGroups(const ModelConfig& config) {
  std::vector<FusionGroup> groups;
  for (TrunkLinear& linear : TrunkLinears(config)) {
    std::string norm = NormOf(linear.base);
    if (norm.empty() || groups.empty() || groups.back().norm != norm) groups.push_back({std::move(norm), {}});
    groups.back().linears.push_back(std::move(linear));
  }
  return groups;
}

}  // namespace lancet
