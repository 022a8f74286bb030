// Position ids on the three M-RoPE axes. Text advances all axes by one a token; a picture or clip spreads its
// tokens over a grid and the text after it goes on behind the largest id.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "common/request_plan.h"

namespace lancet {

// Tokens of a visual item: frames, rows, columns. For latents one token each.
struct LatentGrid {
  int32_t t = 0;
  int32_t h = 0;
  int32_t w = 0;

  int64_t num_tokens() const { return int64_t{t} * h * w; }
  friend bool operator==(const LatentGrid&, const LatentGrid&) = default;
};

// A block as positions see it: a run of text, or a start marker, a grid and an end marker.
struct BlockExtent {
  int64_t num_text_tokens = 0;
  LatentGrid grid;  // a visual block if it has tokens; num_text_tokens is then 0

  bool visual() const { return grid.num_tokens() > 0; }
  int64_t num_tokens() const { return visual() ? grid.num_tokens() + 2 : num_text_tokens; }
};

// Ids of every block of a sequence, counted from 0.
std::vector<Positions> NaturalPositions(absl::Span<const BlockExtent> blocks);

}  // namespace lancet
