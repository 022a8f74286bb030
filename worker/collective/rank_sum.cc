#include "worker/collective/rank_sum.h"

#include <algorithm>
#include <cstring>

namespace lancet {
namespace {

constexpr size_t kCacheLineFloats = 16;
// The running sum of one block (8 KiB) stays in the first-level cache while the partials stream past.
constexpr size_t kBlockFloats = 2048;

// Written so that the compiler vectorises them.
void Add(const float* __restrict a, const float* __restrict b, size_t count, float* __restrict out) {
  for (size_t i = 0; i < count; ++i) {
    out[i] = a[i] + b[i];
  }
}

void Accumulate(const float* __restrict a, size_t count, float* __restrict out) {
  for (size_t i = 0; i < count; ++i) {
    out[i] += a[i];
  }
}

}  // namespace

SliceRange RankSlice(size_t count, int rank, int world_size) {
  const size_t lines = (count + kCacheLineFloats - 1) / kCacheLineFloats;
  const auto bound = [&](int r) { return std::min(count, lines * r / world_size * kCacheLineFloats); };
  return {bound(rank), bound(rank + 1)};
}

void SumInRankOrder(absl::Span<const float* const> partials, SliceRange slice, float* out) {
  for (size_t begin = slice.begin; begin < slice.end; begin += kBlockFloats) {
    const size_t count = std::min(kBlockFloats, slice.end - begin);
    if (partials.size() == 1) {
      std::memcpy(out + begin, partials[0] + begin, count * sizeof(float));
      continue;
    }
    Add(partials[0] + begin, partials[1] + begin, count, out + begin);
    for (size_t rank = 2; rank < partials.size(); ++rank) {
      Accumulate(partials[rank] + begin, count, out + begin);
    }
  }
}

}  // namespace lancet
