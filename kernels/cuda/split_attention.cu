#include <math_constants.h>

#include "kernels/cuda/device/bf16_math.cuh"
#include "kernels/cuda/device/cluster.cuh"
#include "kernels/cuda/device/mma.cuh"
#include "kernels/cuda/device/programmatic_launch.cuh"
#include "kernels/cuda/device/rope.cuh"
#include "kernels/cuda/split_attention.h"

namespace lancet::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr int kWarpKeys = kSplitKeys / kWarps;
constexpr int kProbabilityStride = kSplitKeys + 8;
static_assert(kWarpKeys == 16);

template <int D>
struct Layout {
  static constexpr int kStride = D + 8;
  static constexpr int kTile = kSplitKeys * kStride;  // values
  static constexpr int kStage = 2 * kTile;            // keys, then values
  static constexpr int kBytes = 2 * kStage * 2;       // two stages
};

// Copies tile `tile` of one head's keys and values; keys from `valid` on become zeros.
template <int D>
__device__ __forceinline__ void CopyTile(const AttentionBlock& block, const bf16* head, int tile, int valid,
                                         bf16* stage) {
  using L = Layout<D>;
  constexpr int kChunks = D / 8;
  for (int i = threadIdx.x; i < kSplitKeys * kChunks; i += kThreads) {
    const int key = i / kChunks;
    const int col = i % kChunks * 8;
    const int which = tile * kSplitKeys + key;
    const bool inside = which < valid;
    const bf16* from = head + static_cast<int64_t>(inside ? which : 0) * block.kv_stride + col;
    device::CopyAsync16(stage + key * L::kStride + col, from, inside);
    device::CopyAsync16(stage + L::kTile + key * L::kStride + col, from + block.v_offset, inside);
  }
}

template <int D>
__global__ void __launch_bounds__(kThreads) SplitKernel(SplitArgs p, float scale_log2) {
  using L = Layout<D>;
  extern __shared__ __align__(16) uint8_t shared[];
  bf16* stages = reinterpret_cast<bf16*>(shared);
  __shared__ __align__(16) bf16 query[kMaxGroup * D];
  __shared__ __align__(16) bf16 probability[kMaxGroup * kProbabilityStride];
  __shared__ float warp_max[kWarps][kMaxGroup];
  __shared__ float warp_sum[kWarps][kMaxGroup];
  // What the other blocks read in the end: sums of values, the maximum, the sum of weights.
  __shared__ float block_out[kMaxGroup][D];
  __shared__ float block_max[kMaxGroup];
  __shared__ float block_sum[kMaxGroup];

  const int rank = blockIdx.x;
  const int ranks = gridDim.x;
  const int kv = blockIdx.y;
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;

  // Tables are older than the kernel before, and so are the keys before a fresh one: only what that kernel
  // writes has to be waited for.
  if (p.overlap == LaunchOverlap::kMany) device::LetKernelAfterStart();
  const AttentionRow which = p.rows[blockIdx.z];
  const AttentionBlock block = p.blocks[which.block];
  const int past = block.num_keys - block.num_rows;
  const int visible = block.causal != 0 ? past + which.index + 1 : block.num_keys;
  const int tiles = (visible + kSplitKeys - 1) / kSplitKeys;
  const int rounds = rank < tiles ? (tiles - rank + ranks - 1) / ranks : 0;
  const int64_t row = block.rows != nullptr ? block.rows[which.index] : block.first_row + which.index;
  const bf16* head = block.base + p.layer * block.layer_stride + kv * D;
  const int cached = p.fresh ? visible - 1 : visible;
  if (!p.fresh) {
    device::WaitForKernelBefore();
    device::LetKernelAfterStart();
  }
  for (int round = 0; round < 2; ++round) {
    if (round < rounds) CopyTile<D>(block, head, rank + round * ranks, cached, stages + round * L::kStage);
    device::CommitCopies();
  }
  const bf16* q = p.q + row * p.q_stride + static_cast<int64_t>(kv) * p.group * D;
  // The block that has the last tile has the fresh key.
  const bool has_fresh = p.fresh && (tiles - 1) % ranks == rank;
  device::RopeHead<1> fresh{};
  if (p.fresh) {
    constexpr int kWarpHeads = kMaxGroup / kWarps;
    const device::RopeHead<1> q_weight = device::LoadHead<1>(p.rope.q_norm, D);
    const device::RopeHead<1> k_weight = device::LoadHead<1>(p.rope.k_norm, D);
    device::WaitForKernelBefore();
    device::LetKernelAfterStart();
    // All loads first: what they cost is their latency.
    const device::RopeTurn<1> turn =
        device::LoadTurn<1>(p.rope.cos + row * (D / 2), p.rope.sin + row * (D / 2), D);
    const bool wide = p.rope.wide[row] != 0;
    device::RopeHead<1> heads[kWarpHeads] = {};
#pragma unroll
    for (int i = 0; i < kWarpHeads; ++i) {
      const int h = warp * kWarpHeads + i;
      if (h < p.group) heads[i] = device::LoadHead<1>(q + h * D, D);
    }
    if (has_fresh && warp < 2) {
      const int64_t which_head = p.kv_heads * p.group + warp * p.kv_heads + kv;
      fresh = device::LoadHead<1>(p.q + row * p.q_stride + which_head * D, D);
    }
#pragma unroll
    for (int i = 0; i < kWarpHeads; ++i) {
      // Heads beyond the group are zeros and stay so.
      device::NormRope(heads[i], D, q_weight, p.rope.eps, turn, wide);
      device::StoreHead(query + (warp * kWarpHeads + i) * D, D, heads[i]);
    }
    if (has_fresh && warp < 2) {
      if (warp == 0) device::NormRope(fresh, D, k_weight, p.rope.eps, turn, wide);
      bf16* to = const_cast<bf16*>(head) + static_cast<int64_t>(visible - 1) * block.kv_stride;
      device::StoreHead(to + (warp == 0 ? 0 : block.v_offset), D, fresh);
    }
  } else {
    for (int i = threadIdx.x; i < kMaxGroup * D; i += kThreads) query[i] = i < p.group * D ? q[i] : bf16{};
  }

  // A lane holds heads 2 (lane % 4) + c, of scores for keys lane / 4 + 8 h of its warp's 16, of results for
  // dimensions lane / 4 + 8 h of each 16 of its warp's quarter.
  constexpr int kWarpDims = D / kWarps;
  float out[kWarpDims / 16][4] = {};
  float largest[2] = {-CUDART_INF_F, -CUDART_INF_F};
  float sum[2] = {};  // of this lane's keys
  const uint32_t* query_pairs = reinterpret_cast<const uint32_t*>(query);
  const uint32_t* probability_pairs = reinterpret_cast<const uint32_t*>(probability);
  for (int round = 0; round < rounds; ++round) {
    if (round == 0) {
      device::WaitCopies<1>();
    } else {
      device::WaitCopies<0>();
    }
    __syncthreads();
    bf16* keys = stages + round % 2 * L::kStage;
    bf16* values = keys + L::kTile;
    const int tile = rank + round * ranks;
    const int first = tile * kSplitKeys;
    // The stage of the round before is free now.
    if (round > 0) {
      if (round + 1 < rounds) {
        CopyTile<D>(block, head, tile + ranks, cached, stages + (round + 1) % 2 * L::kStage);
      }
      device::CommitCopies();
    }
    if (has_fresh && round + 1 == rounds) {
      if (warp < 2)
        device::StoreHead((warp == 0 ? keys : values) + (visible - 1 - first) * L::kStride, D, fresh);
      __syncthreads();
    }

    float score[4] = {};
#pragma unroll
    for (int d = 0; d < D; d += 16) {
      const uint32_t b0 = query_pairs[(lane / 4 * D + d) / 2 + lane % 4];
      const uint32_t b1 = query_pairs[(lane / 4 * D + d) / 2 + lane % 4 + 4];
      uint32_t a[4];
      device::LoadMatrix4(a, keys + (warp * kWarpKeys + lane % 16) * L::kStride + d + lane / 16 * 8);
      device::MmaBf16(score, a, b0, b1);
    }
    float tile_max[2] = {-CUDART_INF_F, -CUDART_INF_F};
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int key = first + warp * kWarpKeys + lane / 4 + 8 * h;
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        float& s = score[h * 2 + c];
        s = key < visible ? s * scale_log2 : -CUDART_INF_F;
        tile_max[c] = fmaxf(tile_max[c], s);
      }
    }
#pragma unroll
    for (int c = 0; c < 2; ++c) {
#pragma unroll
      for (int offset = 4; offset < 32; offset *= 2) {
        tile_max[c] = fmaxf(tile_max[c], __shfl_xor_sync(0xffffffffu, tile_max[c], offset));
      }
      if (lane < 4) warp_max[warp][lane * 2 + c] = tile_max[c];
    }
    __syncthreads();
    float rescale[2];
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      const int query_head = lane % 4 * 2 + c;
      // The first key of a tile is visible: the maximum is finite from the first round on.
      float now = largest[c];
#pragma unroll
      for (int w = 0; w < kWarps; ++w) now = fmaxf(now, warp_max[w][query_head]);
      rescale[c] = exp2f(largest[c] - now);
      largest[c] = now;
      sum[c] *= rescale[c];
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const float e = exp2f(score[h * 2 + c] - now);
        sum[c] += e;
        probability[query_head * kProbabilityStride + warp * kWarpKeys + lane / 4 + 8 * h] =
            device::Narrow(e);
      }
    }
    __syncthreads();

    // out^T [d, heads] = values^T [d, keys] * probabilities^T [keys, heads].
#pragma unroll
    for (int m = 0; m < kWarpDims / 16; ++m) {
#pragma unroll
      for (int i = 0; i < 4; ++i) out[m][i] *= rescale[i % 2];
    }
#pragma unroll
    for (int k = 0; k < kSplitKeys; k += 16) {
      const uint32_t b0 = probability_pairs[(lane / 4 * kProbabilityStride + k) / 2 + lane % 4];
      const uint32_t b1 = probability_pairs[(lane / 4 * kProbabilityStride + k) / 2 + lane % 4 + 4];
#pragma unroll
      for (int m = 0; m < kWarpDims / 16; ++m) {
        uint32_t a[4];
        const int key = k + lane % 8 + lane / 16 * 8;
        const int d = warp * kWarpDims + m * 16 + lane / 8 % 2 * 8;
        device::LoadMatrix4Transposed(a, values + key * L::kStride + d);
        device::MmaBf16(out[m], a, b0, b1);
      }
    }
  }

#pragma unroll
  for (int m = 0; m < kWarpDims / 16; ++m) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      block_out[lane % 4 * 2 + i % 2][warp * kWarpDims + m * 16 + lane / 4 + 8 * (i / 2)] = out[m][i];
    }
  }
#pragma unroll
  for (int c = 0; c < 2; ++c) {
#pragma unroll
    for (int offset = 4; offset < 32; offset *= 2) sum[c] += __shfl_xor_sync(0xffffffffu, sum[c], offset);
    if (lane < 4) {
      warp_sum[warp][lane * 2 + c] = sum[c];
      if (warp == 0) block_max[lane * 2 + c] = largest[c];
    }
  }
  __syncthreads();
  if (threadIdx.x < kMaxGroup) {
    float total = warp_sum[0][threadIdx.x];
    for (int w = 1; w < kWarps; ++w) total += warp_sum[w][threadIdx.x];
    block_sum[threadIdx.x] = total;
  }
  device::SyncCluster();
  // Each block puts some of the heads together. A block without tiles has weight 0.
  for (int h = rank; h < p.group; h += ranks) {
    float all_max = -CUDART_INF_F;
    float weight[kSplitBlocks];
#pragma unroll
    for (int r = 0; r < kSplitBlocks; ++r) {
      weight[r] = r < ranks ? device::LoadOfBlock(&block_max[h], r) : -CUDART_INF_F;
      all_max = fmaxf(all_max, weight[r]);
    }
    float total = 0.0f;
    float value = 0.0f;
    const int d = threadIdx.x % D;
#pragma unroll
    for (int r = 0; r < kSplitBlocks; ++r) {
      if (r >= ranks) break;
      const float w = exp2f(weight[r] - all_max);
      total = fmaf(w, device::LoadOfBlock(&block_sum[h], r), total);
      value = fmaf(w, device::LoadOfBlock(&block_out[h][d], r), value);
    }
    if (threadIdx.x < D) {
      p.out[row * p.out_stride + (static_cast<int64_t>(kv) * p.group + h) * D + d] =
          device::Narrow(value / total);
    }
  }
  // Nobody leaves while others read its memory.
  device::SyncCluster();
}

template <int D>
cudaError_t Launch(const SplitArgs& args, cudaStream_t stream) {
  constexpr int kBytes = Layout<D>::kBytes;
  int major = 0;
  cudaError_t error = ComputeCapabilityMajor(&major);
  if (error != cudaSuccess) return error;
  error = AllowShared(SplitKernel<D>, kBytes);
  if (error != cudaSuccess) return error;
  const float scale_log2 = 1.4426950408889634f / sqrtf(static_cast<float>(D));
  LaunchShape shape;
  shape.cluster = major >= 9 ? kSplitBlocks : 1;
  shape.blocks = dim3(shape.cluster, args.kv_heads, args.num_rows);
  shape.threads = dim3(kThreads);
  shape.shared_bytes = kBytes;
  shape.overlaps = args.overlap != LaunchOverlap::kNone;
  return LaunchKernel(SplitKernel<D>, shape, stream, args, scale_log2);
}

}  // namespace

cudaError_t SplitAttention(const SplitArgs& args, cudaStream_t stream) {
  if (args.num_rows == 0 || args.kv_heads == 0) return cudaSuccess;
  if (args.group < 1 || args.group > kMaxGroup) return cudaErrorInvalidValue;
  switch (args.head_dim) {
    case 128:
      return Launch<128>(args, stream);
    case 64:
      return Launch<64>(args, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace lancet::cuda
