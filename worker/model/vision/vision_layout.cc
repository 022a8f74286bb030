#include "worker/model/vision/vision_layout.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace lancet {
namespace {

// Checked before anything is allocated: grids come with a request.
absl::Status CheckGrids(const VisionConfig& config, absl::Span<const VisionGrid> grids, int64_t max_patches) {
  if (grids.empty()) return absl::InvalidArgumentError("the vision tower got no picture");
  int64_t total = 0;
  for (const VisionGrid& grid : grids) {
    const auto describe = [&] { return absl::StrCat("vision grid ", grid.t, "x", grid.h, "x", grid.w); };
    if (grid.t < 1 || grid.h < 1 || grid.w < 1 || grid.h % config.merge_size != 0 ||
        grid.w % config.merge_size != 0) {
      return absl::InvalidArgumentError(absl::StrCat(describe(),
                                                     ": expected positive extents, and multiples of ",
                                                     config.merge_size, " for the last two"));
    }
    // No product of three may overflow: each factor is held against what is left.
    const int64_t left = max_patches - total;
    if (grid.t > left || grid.h > left / grid.t || grid.w > left / grid.t / grid.h) {
      return absl::InvalidArgumentError(
          absl::StrCat(describe(), ": the vision tower has room for ", max_patches, " patches in all"));
    }
    total += grid.patches();
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<VisionLayout> MakeVisionLayout(const VisionConfig& config, absl::Span<const VisionGrid> grids,
                                              int64_t max_patches) {
  LANCET_RETURN_IF_ERROR(CheckGrids(config, grids, max_patches));
  const int64_t merge = config.merge_size;
  const int64_t window = config.window_cells;
  VisionLayout layout;
  layout.windows.push_back(0);
  layout.frames.push_back(0);
  int64_t base = 0;  // number of the frame's first cell
  const auto add_cell = [&](int64_t y, int64_t x, int64_t width) {
    layout.cells.push_back(static_cast<int32_t>(base + y * width + x));
    for (int64_t j = 0; j < config.cell_patches(); ++j) {
      layout.places.push_back(
          {static_cast<int32_t>(y * merge + j / merge), static_cast<int32_t>(x * merge + j % merge)});
    }
  };
  for (const VisionGrid& grid : grids) {
    const int64_t height = grid.h / merge;
    const int64_t width = grid.w / merge;
    for (int32_t frame = 0; frame < grid.t; ++frame, base += height * width) {
      for (int64_t top = 0; top < height; top += window) {
        for (int64_t left = 0; left < width; left += window) {
          for (int64_t y = top; y < std::min(top + window, height); ++y) {
            for (int64_t x = left; x < std::min(left + window, width); ++x) add_cell(y, x, width);
          }
          layout.windows.push_back(static_cast<int32_t>(layout.patches()));
        }
      }
      layout.frames.push_back(static_cast<int32_t>(layout.patches()));
    }
  }
  return layout;
}

}  // namespace lancet
