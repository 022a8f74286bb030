// Which tensors a random checkpoint has, and their values: functions of seed, name and place alone, so that
// any piece of a tensor can be made by itself, on any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "common/tensor_view.h"
#include "tools/make_random/random_dims.h"

namespace lancet {

enum class RandomKind {
  kUniform,    // kBf16 or kF32, between low and high
  kCodes,      // kU8: two E2M1 codes a byte; every block of 16 has one of the largest magnitude
  kScales,     // kBf16: block scales, between 0.002 and 0.01
  kScalesFp8,  // kU8: the same scales as E4M3
};

struct RandomTensor {
  std::string name;
  DType dtype = DType::kBf16;
  Shape shape;
  RandomKind kind = RandomKind::kUniform;
  float low = 0;
  float high = 0;
  uint64_t stream = 0;  // of random numbers; the same for both forms of a Linear's scales

  int64_t num_bytes() const { return NumElements(shape) * static_cast<int64_t>(DTypeSize(dtype)); }
};

// Every tensor of the trunk's file in the release, latent_pos_embed.pos_embed included, which nothing reads.
std::vector<RandomTensor> RandomTrunkTensors(const RandomDims& dims, uint64_t seed);
// The vision tower's own file.
std::vector<RandomTensor> RandomVisionTensors(const RandomDims& dims, uint64_t seed);
// The autoencoder as published: encoder and decoder in F32, with every temporal tap.
std::vector<RandomTensor> RandomVaeTensors(const RandomDims& dims, uint64_t seed);

// Pieces of tensors begin at multiples of this.
inline constexpr int64_t kRandomPieceAlignment = 64;

// Bytes [first, first + out.size()) of the tensor; first is a multiple of kRandomPieceAlignment.
void FillRandom(const RandomTensor& tensor, int64_t first, absl::Span<std::byte> out);

}  // namespace lancet
