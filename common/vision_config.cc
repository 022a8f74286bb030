#include "common/vision_config.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/json_fields.h"
#include "common/status_macros.h"

namespace lancet {
namespace {

using nlohmann::json;

// Upper limits keep products of sizes far inside int64; the release is at 32, 1280 and 3420.
constexpr int64_t kMaxDepth = 1024;
constexpr int64_t kMaxHidden = 1 << 15;
constexpr int64_t kMaxInner = 1 << 20;
constexpr int64_t kMaxPatch = 64;
constexpr int64_t kMaxMerge = 8;
constexpr int64_t kMaxWindowPixels = 1 << 16;
constexpr int64_t kMaxHeadDim = 256;  // of the attention kernels

absl::Status CheckUnsupported(const JsonFields& root) {
  if (const json* act = root.Find("hidden_act"); act != nullptr && *act != "silu") {
    return root.Error("hidden_act", "is not 'silu', the only one that is known");
  }
  for (const char* key : {"in_chans", "in_channels"}) {
    LANCET_RETURN_IF_ERROR(root.Int(key, 3, 3, 3).status());
  }
  return absl::OkStatus();
}

absl::Status ReadHeads(const JsonFields& root, VisionConfig& config) {
  LANCET_ASSIGN_OR_RETURN(config.num_heads, root.Int("num_heads", 1, 1024));
  config.head_dim = config.hidden_size / config.num_heads;
  // A head's rotation has as many frequencies for rows as for columns, and each turns a pair.
  if (config.hidden_size % config.num_heads != 0 || config.head_dim % 4 != 0 ||
      config.head_dim > kMaxHeadDim) {
    return root.Error("num_heads",
                      absl::StrCat("is ", config.num_heads, "; expected hidden_size ", config.hidden_size,
                                   " divided by it to be a multiple of 4, at most ", kMaxHeadDim));
  }
  return absl::OkStatus();
}

absl::Status ReadPatches(const JsonFields& root, VisionConfig& config) {
  LANCET_ASSIGN_OR_RETURN(config.patch_size, root.Int("patch_size", 1, kMaxPatch, config.patch_size));
  LANCET_RETURN_IF_ERROR(
      root.Int("spatial_patch_size", config.patch_size, config.patch_size, config.patch_size).status());
  LANCET_ASSIGN_OR_RETURN(config.temporal_patch_size,
                          root.Int("temporal_patch_size", 1, kMaxMerge, config.temporal_patch_size));
  LANCET_ASSIGN_OR_RETURN(config.merge_size, root.Int("spatial_merge_size", 1, kMaxMerge, config.merge_size));
  const int64_t cell_pixels = config.patch_size * config.merge_size;
  LANCET_ASSIGN_OR_RETURN(const int64_t window, root.Int("window_size", cell_pixels, kMaxWindowPixels,
                                                         config.window_cells * cell_pixels));
  if (window % cell_pixels != 0) {
    return root.Error("window_size", absl::StrCat("is ", window, "; expected a multiple of ", cell_pixels,
                                                  " (patch_size times spatial_merge_size)"));
  }
  config.window_cells = window / cell_pixels;
  return absl::OkStatus();
}

absl::Status ReadFullAttentionBlocks(const JsonFields& root, VisionConfig& config) {
  constexpr char kKey[] = "fullatt_block_indexes";
  const json* blocks = root.Find(kKey);
  const json released = {7, 15, 23, 31};
  if (blocks == nullptr) blocks = &released;
  if (!blocks->is_array() || blocks->size() > static_cast<size_t>(config.depth)) {
    return root.Error(kKey, absl::StrCat("is not a list of at most ", config.depth, " integers"));
  }
  for (const json& block : *blocks) {
    LANCET_ASSIGN_OR_RETURN(const int64_t index, root.CheckInt(block, kKey, 0, config.depth - 1));
    config.full_attention_blocks.push_back(index);
  }
  std::sort(config.full_attention_blocks.begin(), config.full_attention_blocks.end());
  return absl::OkStatus();
}

}  // namespace

bool VisionConfig::IsFullAttention(int64_t block) const {
  return std::binary_search(full_attention_blocks.begin(), full_attention_blocks.end(), block);
}

absl::StatusOr<VisionConfig> ParseVisionConfig(const std::string& json_text, const std::string& source_name) {
  LANCET_ASSIGN_OR_RETURN(const json value, ParseConfigObject(json_text, source_name));
  const JsonFields root(value, source_name);
  LANCET_RETURN_IF_ERROR(CheckUnsupported(root));
  VisionConfig config;
  LANCET_ASSIGN_OR_RETURN(config.depth, root.Int("depth", 1, kMaxDepth));
  LANCET_ASSIGN_OR_RETURN(config.hidden_size, root.Int("hidden_size", 4, kMaxHidden));
  LANCET_ASSIGN_OR_RETURN(config.intermediate_size, root.Int("intermediate_size", 1, kMaxInner));
  LANCET_ASSIGN_OR_RETURN(config.out_hidden_size, root.Int("out_hidden_size", 1, 1 << 17));
  LANCET_RETURN_IF_ERROR(ReadHeads(root, config));
  LANCET_RETURN_IF_ERROR(ReadPatches(root, config));
  LANCET_RETURN_IF_ERROR(ReadFullAttentionBlocks(root, config));
  return config;
}

}  // namespace lancet
