// Start noise: the values that torch's CUDA generator gives for a seed, as a function of (seed, count,
// element) alone, so equal on every rank and backend. Philox 4x32-10, key = seed, Box-Muller with the sine
// first.
#pragma once

#include <cstdint>

#include "absl/types/span.h"

namespace lancet {

// The streaming multiprocessors of the GPU whose stream is reproduced. Only draws of more than 2048 * 132 =
// 270,336 values depend on it; every picture up to 1024 x 1024 draws fewer.
inline constexpr int64_t kNoiseMultiprocessors = 132;

// The first draw of `count` normals from a generator seeded with `seed`: writes elements [begin, begin +
// out.size()). f32, as the device gives them to within 1.4e-6; callers round to bf16.
void FillNormalNoise(uint64_t seed, int64_t count, int64_t begin, absl::Span<float> out);

// The same for a later draw: `offset` is the generator's Philox offset (0 for the first draw, a multiple of
// 4). Returns the offset after the draw.
uint64_t FillNormalNoise(uint64_t seed, uint64_t offset, int64_t count, int64_t begin, absl::Span<float> out);

}  // namespace lancet
