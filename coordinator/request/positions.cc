#include "coordinator/request/positions.h"

#include <algorithm>
#include <cstddef>

namespace lancet {
namespace {

// Seconds per grid step (always 1) times tokens per second (2): the ids of frames are this far apart.
constexpr int32_t kFrameStep = 2;

void Append(Positions& positions, int32_t t, int32_t h, int32_t w) {
  positions.t.push_back(t);
  positions.h.push_back(h);
  positions.w.push_back(w);
}

// A run of text counts as one id a token on every axis. Returns the id after it.
int32_t AppendText(Positions& positions, int64_t count, int32_t next) {
  for (int64_t i = 0; i < count; ++i, ++next) Append(positions, next, next, next);
  return next;
}

int32_t AppendGrid(Positions& positions, const LatentGrid& grid, int32_t base) {
  for (int32_t a = 0; a < grid.t; ++a) {
    for (int32_t b = 0; b < grid.h; ++b) {
      for (int32_t d = 0; d < grid.w; ++d) Append(positions, base + kFrameStep * a, base + b, base + d);
    }
  }
  return base + 1 + std::max({kFrameStep * (grid.t - 1), grid.h - 1, grid.w - 1});
}

}  // namespace

std::vector<Positions> NaturalPositions(absl::Span<const BlockExtent> blocks) {
  std::vector<Positions> result;
  result.reserve(blocks.size());
  int32_t next = 0;
  for (const BlockExtent& block : blocks) {
    Positions& positions = result.emplace_back();
    const auto count = static_cast<size_t>(block.num_tokens());
    positions.t.reserve(count);
    positions.h.reserve(count);
    positions.w.reserve(count);
    if (block.visual()) {
      next = AppendText(positions, 1, next);
      next = AppendGrid(positions, block.grid, next);
      next = AppendText(positions, 1, next);
    } else {
      next = AppendText(positions, block.num_text_tokens, next);
    }
  }
  return result;
}

}  // namespace lancet
