// Integer arithmetic of sharding: which part of an extent a rank owns.
#pragma once

#include <cstdint>

namespace lancet {

// [begin, end).
struct Range {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t size() const { return end - begin; }
  friend bool operator==(const Range&, const Range&) = default;
};

// Splits `count` units over `world_size` ranks into contiguous ranges; sizes differ by at most one, larger
// ones first. A rank may get nothing when there are fewer units than ranks.
constexpr Range SplitEvenly(int64_t count, int rank, int world_size) {
  const int64_t base = count / world_size;
  const int64_t extra = count % world_size;
  const int64_t begin = rank * base + (rank < extra ? rank : extra);
  return {begin, begin + base + (rank < extra ? 1 : 0)};
}

}  // namespace lancet
