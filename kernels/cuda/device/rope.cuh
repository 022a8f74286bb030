// Norm and rotation of one head by one warp.
#pragma once

#include "kernels/cuda/device/bf16_math.cuh"
#include "kernels/cuda/device/reduce.cuh"

namespace lancet::device {

// A lane holds values 2 lane, 2 lane + 1 (+ 64 i) of the first half of a head and the same of the second.
template <int HalfPairs>  // head_dim / 128, rounded up
struct RopeHead {
  float a[HalfPairs][2];
  float b[HalfPairs][2];
};

template <int HalfPairs>
__device__ __forceinline__ RopeHead<HalfPairs> LoadHead(const bf16* head, int head_dim) {
  const int lane = threadIdx.x % 32;
  const int half = head_dim / 2;
  RopeHead<HalfPairs> h;
#pragma unroll
  for (int i = 0; i < HalfPairs; ++i) {
    const int f = 2 * lane + 64 * i;
    const bool inside = f < half;
    const uint32_t a = inside ? *reinterpret_cast<const uint32_t*>(head + f) : 0u;
    const uint32_t b = inside ? *reinterpret_cast<const uint32_t*>(head + half + f) : 0u;
    h.a[i][0] = LowHalf(a);
    h.a[i][1] = HighHalf(a);
    h.b[i][0] = LowHalf(b);
    h.b[i][1] = HighHalf(b);
  }
  return h;
}

// By how much a row is turned: the cosines and sines of a lane's values.
template <int HalfPairs>
struct RopeTurn {
  float cos[HalfPairs][2];
  float sin[HalfPairs][2];
};

// cos, sin: [head_dim / 2].
template <int HalfPairs>
__device__ __forceinline__ RopeTurn<HalfPairs> LoadTurn(const bf16* cos, const bf16* sin, int head_dim) {
  const int lane = threadIdx.x % 32;
  RopeTurn<HalfPairs> turn;
#pragma unroll
  for (int i = 0; i < HalfPairs; ++i) {
    const int f = 2 * lane + 64 * i;
    const bool inside = f < head_dim / 2;
    const uint32_t c = inside ? *reinterpret_cast<const uint32_t*>(cos + f) : 0u;
    const uint32_t s = inside ? *reinterpret_cast<const uint32_t*>(sin + f) : 0u;
    turn.cos[i][0] = LowHalf(c);
    turn.cos[i][1] = HighHalf(c);
    turn.sin[i][0] = LowHalf(s);
    turn.sin[i][1] = HighHalf(s);
  }
  return turn;
}

// In place: norm over the head, weight (loaded like a head), rotation; rounds as kernels/rope.h says. The
// result is not yet rounded for the last time.
template <int HalfPairs>
__device__ __forceinline__ void NormRope(RopeHead<HalfPairs>& h, int head_dim,
                                         const RopeHead<HalfPairs>& weight, float eps,
                                         const RopeTurn<HalfPairs>& turn, bool wide) {
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < HalfPairs; ++i) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      sum = fmaf(h.a[i][j], h.a[i][j], sum);
      sum = fmaf(h.b[i][j], h.b[i][j], sum);
    }
  }
  const float inverse = 1.0f / sqrtf(WarpSum(sum) / static_cast<float>(head_dim) + eps);
  const auto round = [wide](float x) { return wide ? x : Round(x); };
#pragma unroll
  for (int i = 0; i < HalfPairs; ++i) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const float a = round(round(h.a[i][j] * inverse) * weight.a[i][j]);
      const float b = round(round(h.b[i][j] * inverse) * weight.b[i][j]);
      const float c = turn.cos[i][j];
      const float s = turn.sin[i][j];
      // Products are rounded apart even where nothing else is: a fused multiply-add would not be the
      // reference's.
      h.a[i][j] = __fsub_rn(round(__fmul_rn(a, c)), round(__fmul_rn(b, s)));
      h.b[i][j] = __fadd_rn(round(__fmul_rn(b, c)), round(__fmul_rn(a, s)));
    }
  }
}

template <int HalfPairs>
__device__ __forceinline__ void StoreHead(bf16* head, int head_dim, const RopeHead<HalfPairs>& h) {
  const int lane = threadIdx.x % 32;
  const int half = head_dim / 2;
#pragma unroll
  for (int i = 0; i < HalfPairs; ++i) {
    const int f = 2 * lane + 64 * i;
    if (f >= half) continue;
    *reinterpret_cast<uint32_t*>(head + f) = PackPair(h.a[i][0], h.a[i][1]);
    *reinterpret_cast<uint32_t*>(head + half + f) = PackPair(h.b[i][0], h.b[i][1]);
  }
}

}  // namespace lancet::device
