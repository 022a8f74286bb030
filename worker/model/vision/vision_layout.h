// Where the patches of pictures go inside the vision tower: the order by windows, and the runs of patches
// that attend to each other.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/vision_config.h"

namespace lancet {

// Extent of one clip in patches; a still picture has t = 1. h and w are multiples of the merge size.
struct VisionGrid {
  int32_t t = 1;
  int32_t h = 0;
  int32_t w = 0;

  int64_t patches() const { return static_cast<int64_t>(t) * h * w; }
};

// Place of a patch inside its frame, as the rotary embedding counts.
struct PatchPlace {
  int32_t row = 0;
  int32_t col = 0;
};

// Patches enter cell by cell: clip, frame, cell row, cell column, then row and column inside the cell. The
// tower works on the same cells in another order, in which a window's cells are neighbours; inside a cell
// nothing moves.
//
// Windows of window_cells x window_cells cells tile each frame, row by row, smaller ones at the right and
// bottom edges; they never span frames, and no patch attends to another frame in any block.
struct VisionLayout {
  std::vector<int32_t> cells;    // [cells] cells[i]: which input cell stands i-th
  std::vector<int32_t> windows;  // cumulative patch counts, first 0: window k is [windows[k], windows[k + 1])
  std::vector<int32_t> frames;   // likewise, of frames
  std::vector<PatchPlace> places;  // [patches] in the tower's order

  int64_t patches() const { return static_cast<int64_t>(places.size()); }
};

// InvalidArgument for an empty list, a grid that is not positive or not in whole cells, or more than
// max_patches patches.
absl::StatusOr<VisionLayout> MakeVisionLayout(const VisionConfig& config, absl::Span<const VisionGrid> grids,
                                              int64_t max_patches);

}  // namespace lancet
