// Architecture numbers of the vision tower (Qwen2.5-VL's ViT), read from the config.json beside its weights.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace lancet {

// Pixels to a side of the release's patches and cells (see VisionConfig): what pictures are cropped to.
inline constexpr int32_t kVisionPatchSide = 14;
inline constexpr int32_t kVisionMergeSize = 2;
inline constexpr int32_t kVisionCellSide = kVisionMergeSize * kVisionPatchSide;

// A picture is cut into patches of patch_size x patch_size pixels; merge_size x merge_size patches form a
// cell, which becomes one token of the trunk. Attention stays inside windows of window_cells x window_cells
// cells, except in full_attention_blocks, where it spans the frame.
struct VisionConfig {
  int64_t depth = 0;
  int64_t hidden_size = 0;
  int64_t num_heads = 0;
  int64_t head_dim = 0;  // hidden_size / num_heads, a multiple of 4
  int64_t intermediate_size = 0;
  int64_t patch_size = kVisionPatchSide;
  int64_t temporal_patch_size = 2;  // frames per patch
  int64_t merge_size = kVisionMergeSize;
  int64_t window_cells = 4;
  std::vector<int64_t> full_attention_blocks;  // ascending
  int64_t out_hidden_size = 0;                 // of a token: the trunk's hidden size

  // Values of a patch: 3 channels x frames x rows x columns.
  int64_t patch_values() const { return 3 * temporal_patch_size * patch_size * patch_size; }
  int64_t cell_patches() const { return merge_size * merge_size; }
  // Width of a cell's concatenated patches.
  int64_t merged_size() const { return cell_patches() * hidden_size; }
  bool IsFullAttention(int64_t block) const;
};

// Epsilon of the tower's norms and base of its rotary frequencies: no file says them.
inline constexpr float kVisionNormEps = 1e-6f;
inline constexpr double kVisionRopeTheta = 10000.0;

// Reads and checks config.json. Sizes are required; patch, merge and window sizes and the blocks of full
// attention have the release's values when absent. InvalidArgument names key, value and limit.
absl::StatusOr<VisionConfig> ParseVisionConfig(const std::string& json_text, const std::string& source_name);

}  // namespace lancet
