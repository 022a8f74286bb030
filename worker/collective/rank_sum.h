// The arithmetic of an all-reduce: which slice is whose, and the sum in rank order.
#pragma once

#include <cstddef>

#include "absl/types/span.h"

namespace lancet {

struct SliceRange {
  size_t begin = 0;
  size_t end = 0;
};

// Rank `rank`'s slice of `count` floats. Slices are in rank order, cover everything, and begin at multiples
// of 16 floats, so that no two ranks write to one cache line.
SliceRange RankSlice(size_t count, int rank, int world_size);

// out[i] = (partials[0][i] + partials[1][i]) + partials[2][i] ... for i in the slice. `out` overlaps no
// partial.
void SumInRankOrder(absl::Span<const float* const> partials, SliceRange slice, float* out);

}  // namespace lancet
