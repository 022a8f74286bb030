#include "common/noise.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>

namespace lancet {
namespace {

constexpr int kRounds = 10;
constexpr int64_t kThreadsPerBlock = 256;
constexpr int64_t kBlocksPerMultiprocessor = 8;
// Normals that a thread makes from one counter value, and as many elements that one round of all threads
// covers per thread.
constexpr int64_t kNormalsPerThread = 4;

using Words = std::array<uint32_t, 4>;

// Philox 4x32-10 of a counter under a key.
Words Philox(Words counter, uint32_t key0, uint32_t key1) {
  for (int round = 0; round < kRounds; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53} * counter[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key0, static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key1, static_cast<uint32_t>(product0)};
    key0 += 0x9E3779B9;
    key1 += 0xBB67AE85;
  }
  return counter;
}

// Two normals from two words, the sine first. Uniforms, radius and products are f32, as on the device; only
// log, sin and cos go through double, which makes them correctly rounded.
void BoxMuller(uint32_t x, uint32_t y, float* out) {
  constexpr float kUniformStep = 0x1p-32f;
  constexpr float kAngleStep = 0x1p-32f * 6.2831855f;
  // The products are exact in double, so each sum is rounded once, like a fused multiply-add.
  const auto u = static_cast<float>(double{static_cast<float>(x)} * kUniformStep + kUniformStep / 2);
  const auto v = static_cast<float>(double{static_cast<float>(y)} * kAngleStep + kAngleStep / 2);
  const float radius = std::sqrt(-2.0f * static_cast<float>(std::log(double{u})));
  out[0] = radius * static_cast<float>(std::sin(double{v}));
  out[1] = radius * static_cast<float>(std::cos(double{v}));
}

}  // namespace

uint64_t FillNormalNoise(uint64_t seed, uint64_t offset, int64_t count, int64_t begin,
                         absl::Span<float> out) {
  const int64_t blocks = std::min(kBlocksPerMultiprocessor * kNoiseMultiprocessors,
                                  (count + kThreadsPerBlock - 1) / kThreadsPerBlock);
  const int64_t threads = std::max<int64_t>(blocks, 1) * kThreadsPerBlock;
  const int64_t per_round = threads * kNormalsPerThread;
  const auto end = begin + static_cast<int64_t>(out.size());
  for (int64_t round = begin / per_round; round * per_round < end; ++round) {
    const uint64_t position = offset / kNormalsPerThread + static_cast<uint64_t>(round);
    for (int64_t thread = 0; thread < threads; ++thread) {
      const int64_t first = round * per_round + thread;
      const int64_t last = first + (kNormalsPerThread - 1) * threads;
      if (last < begin || first >= end) continue;
      const auto id = static_cast<uint64_t>(thread);
      const Words words = Philox({static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32),
                                  static_cast<uint32_t>(id), static_cast<uint32_t>(id >> 32)},
                                 static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
      std::array<float, kNormalsPerThread> normals{};
      BoxMuller(words[0], words[1], &normals[0]);
      BoxMuller(words[2], words[3], &normals[2]);
      for (int64_t k = 0; k < kNormalsPerThread; ++k) {
        const int64_t element = first + k * threads;
        if (element < begin || element >= end) continue;
        out[static_cast<size_t>(element - begin)] = normals[static_cast<size_t>(k)];
      }
    }
  }
  const int64_t rounds = (count + per_round - 1) / per_round;
  return offset + static_cast<uint64_t>(rounds * kNormalsPerThread);
}

void FillNormalNoise(uint64_t seed, int64_t count, int64_t begin, absl::Span<float> out) {
  FillNormalNoise(seed, 0, count, begin, out);
}

}  // namespace lancet
