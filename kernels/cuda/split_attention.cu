#include <math_constants.h>

#include "kernels/cuda/device/bf16_math.cuh"
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

template <int D>
struct Layout {
  static constexpr int kStride = D + 8;
  static constexpr int kTile = kSplitKeys * kStride;  // values
  static constexpr int kBytes = 2 * kTile * 2;        // keys and values
};

// Partial results of a split lie as [kMaxGroup][D] sums, then kMaxGroup maxima, then kMaxGroup weights.
template <int D>
__device__ __forceinline__ float* PartialOf(const SplitArgs& p, int row, int kv, int split) {
  return p.partial +
         ((static_cast<int64_t>(row) * p.kv_heads + kv) * p.max_splits + split) * kMaxGroup * (D + 2);
}

template <int D>
__global__ void __launch_bounds__(kThreads) SplitKernel(SplitArgs p, float scale_log2) {
  using L = Layout<D>;
  extern __shared__ __align__(16) uint8_t shared[];
  bf16* keys = reinterpret_cast<bf16*>(shared);
  bf16* values = keys + L::kTile;
  __shared__ __align__(16) bf16 query[kMaxGroup * D];
  __shared__ __align__(16) bf16 probability[kMaxGroup * kProbabilityStride];
  __shared__ float warp_max[kWarps][kMaxGroup];
  __shared__ float warp_sum[kWarps][kMaxGroup];
  __shared__ bool is_last;

  const int split = blockIdx.x;
  const int kv = blockIdx.y;
  const int entry = blockIdx.z;
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;

  // Tables are older than the kernel before: only what that one writes has to be waited for.
  device::LetKernelAfterStart();
  const AttentionRow which = p.rows[entry];
  const AttentionBlock block = p.blocks[which.block];
  const int past = block.num_keys - block.num_rows;
  const int visible = block.causal != 0 ? past + which.index + 1 : block.num_keys;
  const int splits = (visible + kSplitKeys - 1) / kSplitKeys;
  device::WaitForKernelBefore();
  if (split >= splits) return;
  const int64_t row = block.rows != nullptr ? block.rows[which.index] : block.first_row + which.index;
  const bf16* head = block.base + p.layer * block.layer_stride + kv * D;
  const int first = split * kSplitKeys;

  constexpr int kChunks = D / 8;
  for (int i = threadIdx.x; i < kSplitKeys * kChunks; i += kThreads) {
    const int key = i / kChunks;
    const int col = i % kChunks * 8;
    const bool valid = first + key < visible;
    const bf16* from = head + static_cast<int64_t>(valid ? first + key : 0) * block.kv_stride + col;
    device::CopyAsync16(keys + key * L::kStride + col, from, valid);
    device::CopyAsync16(values + key * L::kStride + col, from + block.v_offset, valid);
  }
  device::CommitCopies();
  const bf16* q = p.q + row * p.q_stride + static_cast<int64_t>(kv) * p.group * D;
  if (p.fresh) {
    const bf16* cos = p.rope.cos + row * (D / 2);
    const bf16* sin = p.rope.sin + row * (D / 2);
    const bool wide = p.rope.wide[row] != 0;
    for (int h = warp; h < kMaxGroup; h += kWarps) {
      device::RopeHead<1> query_head{};
      if (h < p.group) {
        query_head = device::LoadHead<1>(q + h * D, D);
        device::NormRope(query_head, D, p.rope.q_norm, p.rope.eps, cos, sin, wide);
      }
      device::StoreHead(query + h * D, D, query_head);
    }
    device::WaitCopies<0>();
    __syncthreads();
    // The new key and value: into the cache, and over what the copies brought from there.
    if (split + 1 == splits && warp < 2) {
      const int64_t which_head = p.kv_heads * p.group + warp * p.kv_heads + kv;
      device::RopeHead<1> fresh = device::LoadHead<1>(p.q + row * p.q_stride + which_head * D, D);
      if (warp == 0) device::NormRope(fresh, D, p.rope.k_norm, p.rope.eps, cos, sin, wide);
      const int64_t last = visible - 1;
      bf16* cached = const_cast<bf16*>(head) + last * block.kv_stride + (warp == 0 ? 0 : block.v_offset);
      device::StoreHead(cached, D, fresh);
      device::StoreHead((warp == 0 ? keys : values) + (last - first) * L::kStride, D, fresh);
    }
  } else {
    for (int i = threadIdx.x; i < kMaxGroup * D; i += kThreads) query[i] = i < p.group * D ? q[i] : bf16{};
    device::WaitCopies<0>();
  }
  __syncthreads();

  // Scores of this warp's keys (rows of the product) against all heads of the group (columns).
  float score[kWarpKeys / 16][4] = {};
  const uint32_t* query_pairs = reinterpret_cast<const uint32_t*>(query);
#pragma unroll
  for (int d = 0; d < D; d += 16) {
    const uint32_t b0 = query_pairs[(lane / 4 * D + d) / 2 + lane % 4];
    const uint32_t b1 = query_pairs[(lane / 4 * D + d) / 2 + lane % 4 + 4];
#pragma unroll
    for (int m = 0; m < kWarpKeys / 16; ++m) {
      uint32_t a[4];
      const int key = warp * kWarpKeys + m * 16 + lane % 16;
      device::LoadMatrix4(a, keys + key * L::kStride + d + lane / 16 * 8);
      device::MmaBf16(score[m], a, b0, b1);
    }
  }
  // A lane holds heads 2 (lane % 4) + c of keys lane / 4 + 8 h.
  float max[2] = {-CUDART_INF_F, -CUDART_INF_F};
#pragma unroll
  for (int m = 0; m < kWarpKeys / 16; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int key = first + warp * kWarpKeys + m * 16 + lane / 4 + 8 * h;
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        float& s = score[m][h * 2 + c];
        s = key < visible ? s * scale_log2 : -CUDART_INF_F;
        max[c] = fmaxf(max[c], s);
      }
    }
  }
#pragma unroll
  for (int c = 0; c < 2; ++c) {
#pragma unroll
    for (int offset = 4; offset < 32; offset *= 2) {
      max[c] = fmaxf(max[c], __shfl_xor_sync(0xffffffffu, max[c], offset));
    }
    if (lane < 4) warp_max[warp][lane * 2 + c] = max[c];
  }
  __syncthreads();
  float sum[2] = {};
#pragma unroll
  for (int c = 0; c < 2; ++c) {
    const int query_head = lane % 4 * 2 + c;
    // The first key of a split is visible: the maximum is finite.
    max[c] = warp_max[0][query_head];
#pragma unroll
    for (int w = 1; w < kWarps; ++w) max[c] = fmaxf(max[c], warp_max[w][query_head]);
#pragma unroll
    for (int m = 0; m < kWarpKeys / 16; ++m) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const float e = exp2f(score[m][h * 2 + c] - max[c]);
        sum[c] += e;
        const int key = warp * kWarpKeys + m * 16 + lane / 4 + 8 * h;
        probability[query_head * kProbabilityStride + key] = device::Narrow(e);
      }
    }
#pragma unroll
    for (int offset = 4; offset < 32; offset *= 2) sum[c] += __shfl_xor_sync(0xffffffffu, sum[c], offset);
    if (lane < 4) warp_sum[warp][query_head] = sum[c];
  }
  __syncthreads();

  // out^T [d, heads] = values^T [d, keys] * probabilities^T [keys, heads]; a warp has a quarter of d.
  constexpr int kWarpDims = D / kWarps;
  float out[kWarpDims / 16][4] = {};
  const uint32_t* probability_pairs = reinterpret_cast<const uint32_t*>(probability);
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

  float* mine = PartialOf<D>(p, entry, kv, split);
#pragma unroll
  for (int m = 0; m < kWarpDims / 16; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        const int query_head = lane % 4 * 2 + c;
        mine[query_head * D + warp * kWarpDims + m * 16 + lane / 4 + 8 * h] = out[m][h * 2 + c];
      }
    }
  }
  if (threadIdx.x < kMaxGroup) {
    float total = warp_sum[0][threadIdx.x];
    float largest = warp_max[0][threadIdx.x];
    for (int w = 1; w < kWarps; ++w) {
      total += warp_sum[w][threadIdx.x];
      largest = fmaxf(largest, warp_max[w][threadIdx.x]);
    }
    mine[kMaxGroup * D + threadIdx.x] = largest;
    mine[kMaxGroup * (D + 1) + threadIdx.x] = total;
  }
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    uint32_t* ticket = p.tickets + entry * p.kv_heads + kv;
    const uint32_t before = atomicAdd(ticket, 1u);
    is_last = before + 1 == static_cast<uint32_t>(splits);
    if (is_last) *ticket = 0;
  }
  __syncthreads();
  if (!is_last) return;
  __threadfence();

  // Weights of the splits: exp2(maximum of a split - maximum of all), over the sum of all.
  const float* all = PartialOf<D>(p, entry, kv, 0);
  constexpr int kSplitFloats = kMaxGroup * (D + 2);
  constexpr int kRound = 16;  // splits weighed at a time
  __shared__ float weights[kMaxGroup][kRound];
  float value[kMaxGroup * D / kThreads] = {};
  float running_max = -CUDART_INF_F;  // of head `threadIdx.x`, in the threads that have one
  float running_sum = 0.0f;
  __shared__ float rescale[kMaxGroup];
  for (int begin = 0; begin < splits; begin += kRound) {
    const int count = min(kRound, splits - begin);
    if (threadIdx.x < kMaxGroup) {
      float maxima[kRound];
      float sums[kRound];
#pragma unroll
      for (int s = 0; s < kRound; ++s) {
        const float* part = all + (begin + min(s, count - 1)) * kSplitFloats;
        maxima[s] = __ldcg(part + kMaxGroup * D + threadIdx.x);
        sums[s] = __ldcg(part + kMaxGroup * (D + 1) + threadIdx.x);
      }
      float largest = running_max;
#pragma unroll
      for (int s = 0; s < kRound; ++s) largest = fmaxf(largest, maxima[s]);
      const float old = exp2f(running_max - largest);
      running_sum *= old;
      rescale[threadIdx.x] = old;
#pragma unroll
      for (int s = 0; s < kRound; ++s) {
        const float weight = s < count ? exp2f(maxima[s] - largest) : 0.0f;
        weights[threadIdx.x][s] = weight;
        running_sum = fmaf(weight, sums[s], running_sum);
      }
      running_max = largest;
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kMaxGroup * D / kThreads; ++i) {
      const int at = threadIdx.x + i * kThreads;
      float part[kRound];
#pragma unroll
      for (int s = 0; s < kRound; ++s)
        part[s] = s < count ? __ldcg(all + (begin + s) * kSplitFloats + at) : 0.0f;
      value[i] *= rescale[at / D];
#pragma unroll
      for (int s = 0; s < kRound; ++s) value[i] = fmaf(weights[at / D][s], part[s], value[i]);
    }
    __syncthreads();
  }
  if (threadIdx.x < kMaxGroup) rescale[threadIdx.x] = running_sum;
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kMaxGroup * D / kThreads; ++i) {
    const int at = threadIdx.x + i * kThreads;
    if (at / D >= p.group) break;
    p.out[row * p.out_stride + static_cast<int64_t>(kv) * p.group * D + at] =
        device::Narrow(value[i] / rescale[at / D]);
  }
}

template <int D>
cudaError_t Launch(const SplitArgs& args, cudaStream_t stream) {
  constexpr int kBytes = Layout<D>::kBytes;
  const cudaError_t error =
      cudaFuncSetAttribute(SplitKernel<D>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (error != cudaSuccess) return error;
  const float scale_log2 = 1.4426950408889634f / sqrtf(static_cast<float>(D));
  return LaunchProgrammatic(SplitKernel<D>, dim3(args.max_splits, args.kv_heads, args.num_rows),
                            dim3(kThreads), kBytes, stream, args, scale_log2);
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
