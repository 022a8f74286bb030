#include <math_constants.h>

#include "kernels/cuda/device/bf16_math.cuh"
#include "kernels/cuda/device/mma.cuh"
#include "kernels/cuda/flash_attention.h"

namespace lancet::cuda {
namespace {

constexpr int kWarps = 4;  // of 32 query rows each: half the shared-memory traffic of 16
constexpr int kKeyTile = 64;
constexpr int kStages = 2;
constexpr int kRowTiles = 2;  // of 16 query rows a warp

template <int D>
struct Layout {
  static constexpr int kStride = D + 8;  // values; 16-byte reads of eight rows fall into different banks
  static constexpr int kQuery = kQueryTile * kStride;
  static constexpr int kTile = kKeyTile * kStride;
  static constexpr int kBytes = (kQuery + 2 * kStages * kTile) * 2;
};

template <int D>
__device__ __forceinline__ void LoadKeys(const AttentionBlock& block, const bf16* head, int first, bf16* keys,
                                         bf16* values) {
  constexpr int kChunks = D / 8;
  for (int i = threadIdx.x; i < kKeyTile * kChunks; i += kWarps * 32) {
    const int row = i / kChunks;
    const int col = i % kChunks * 8;
    const bool valid = first + row < block.num_keys;
    const bf16* from = head + (valid ? first + row : 0) * block.kv_stride + col;
    device::CopyAsync16(keys + row * Layout<D>::kStride + col, from, valid);
    device::CopyAsync16(values + row * Layout<D>::kStride + col, from + block.v_offset, valid);
  }
}

template <int D>
__global__ void __launch_bounds__(kWarps * 32, 2) FlashKernel(FlashArgs p, float scale_log2) {
  using L = Layout<D>;
  extern __shared__ __align__(16) uint8_t shared[];
  bf16* queries = reinterpret_cast<bf16*>(shared);
  bf16* key_stages = queries + L::kQuery;
  bf16* value_stages = key_stages + kStages * L::kTile;

  const AttentionTile tile = p.tiles[blockIdx.x];
  const AttentionBlock block = p.blocks[tile.block];
  const int head = blockIdx.y;
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const bf16* kv_head = block.base + p.layer * block.layer_stride + head / p.group * D;
  const int past = block.num_keys - block.num_rows;
  const auto row_number = [&](int i) { return block.rows != nullptr ? block.rows[i] : block.first_row + i; };

  constexpr int kChunks = D / 8;
  for (int i = threadIdx.x; i < kQueryTile * kChunks; i += kWarps * 32) {
    const int row = i / kChunks;
    const int col = i % kChunks * 8;
    const bool valid = tile.first + row < block.num_rows;
    const int64_t from = valid ? row_number(tile.first + row) : 0;
    device::CopyAsync16(queries + row * L::kStride + col, p.q + from * p.q_stride + head * D + col, valid);
  }

  const int last_row = min(tile.first + kQueryTile, block.num_rows) - 1;
  const int limit = block.causal != 0 ? min(block.num_keys, past + last_row + 1) : block.num_keys;
  const int key_tiles = (limit + kKeyTile - 1) / kKeyTile;
  LoadKeys<D>(block, kv_head, 0, key_stages, value_stages);
  device::CommitCopies();

  float out[kRowTiles][D / 8][4] = {};
  float row_max[kRowTiles][2];
  float row_sum[kRowTiles][2] = {};
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r) row_max[r][0] = row_max[r][1] = -CUDART_INF_F;

  for (int j = 0; j < key_tiles; ++j) {
    if (j + 1 < key_tiles) {
      const int stage = (j + 1) % kStages;
      LoadKeys<D>(block, kv_head, (j + 1) * kKeyTile, key_stages + stage * L::kTile,
                  value_stages + stage * L::kTile);
      device::CommitCopies();
      device::WaitCopies<1>();
    } else {
      device::WaitCopies<0>();
    }
    __syncthreads();
    const bf16* keys = key_stages + j % kStages * L::kTile;
    const bf16* values = value_stages + j % kStages * L::kTile;

    float score[kRowTiles][kKeyTile / 8][4] = {};
#pragma unroll
    for (int d = 0; d < D; d += 16) {
      uint32_t a[kRowTiles][4];
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) {
        const int row = warp * 16 * kRowTiles + r * 16 + lane % 16;
        device::LoadMatrix4(a[r], queries + row * L::kStride + d + lane / 16 * 8);
      }
#pragma unroll
      for (int n = 0; n < kKeyTile; n += 16) {
        uint32_t b[4];
        const int key = n + lane % 8 + lane / 16 * 8;
        device::LoadMatrix4(b, keys + key * L::kStride + d + lane / 8 % 2 * 8);
#pragma unroll
        for (int r = 0; r < kRowTiles; ++r) {
          device::MmaBf16(score[r][n / 8], a[r], b[0], b[1]);
          device::MmaBf16(score[r][n / 8 + 1], a[r], b[2], b[3]);
        }
      }
    }

    // Mask what a row may not see: keys past the end, and later rows of a causal block.
    const int first_key = j * kKeyTile;
    if (first_key + kKeyTile > block.num_keys ||
        (block.causal != 0 && first_key + kKeyTile > past + tile.first + 1)) {
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const int row = tile.first + warp * 16 * kRowTiles + r * 16 + lane / 4 + h * 8;
          const int visible = block.causal != 0 ? min(block.num_keys, past + row + 1) : block.num_keys;
#pragma unroll
          for (int n = 0; n < kKeyTile / 8; ++n) {
#pragma unroll
            for (int c = 0; c < 2; ++c) {
              if (first_key + n * 8 + lane % 4 * 2 + c >= visible) score[r][n][h * 2 + c] = -CUDART_INF_F;
            }
          }
        }
      }
    }

#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float max = row_max[r][h];
#pragma unroll
        for (int n = 0; n < kKeyTile / 8; ++n) {
          max = fmaxf(max, fmaxf(score[r][n][h * 2], score[r][n][h * 2 + 1]));
        }
        max = fmaxf(max, __shfl_xor_sync(0xffffffffu, max, 1));
        max = fmaxf(max, __shfl_xor_sync(0xffffffffu, max, 2));
        // The first key is visible to every row that exists; rows beyond the block must not make NaN of
        // (-inf) - (-inf).
        const float base = max == -CUDART_INF_F ? 0.0f : max * scale_log2;
        const float correction = exp2f(row_max[r][h] * scale_log2 - base);
        row_max[r][h] = max;
        float sum = 0.0f;
#pragma unroll
        for (int n = 0; n < kKeyTile / 8; ++n) {
#pragma unroll
          for (int c = 0; c < 2; ++c) {
            const float e = exp2f(fmaf(score[r][n][h * 2 + c], scale_log2, -base));
            score[r][n][h * 2 + c] = e;
            sum += e;
          }
        }
        row_sum[r][h] = fmaf(row_sum[r][h], correction, sum);
#pragma unroll
        for (int n = 0; n < D / 8; ++n) {
          out[r][n][h * 2] *= correction;
          out[r][n][h * 2 + 1] *= correction;
        }
      }
    }

#pragma unroll
    for (int k = 0; k < kKeyTile; k += 16) {
      uint32_t a[kRowTiles][4];
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) {
        const float(&low)[4] = score[r][k / 8];
        const float(&high)[4] = score[r][k / 8 + 1];
        a[r][0] = device::PackPair(low[0], low[1]);
        a[r][1] = device::PackPair(low[2], low[3]);
        a[r][2] = device::PackPair(high[0], high[1]);
        a[r][3] = device::PackPair(high[2], high[3]);
      }
#pragma unroll
      for (int d = 0; d < D; d += 16) {
        uint32_t b[4];
        const int key = k + lane % 16;
        device::LoadMatrix4Transposed(b, values + key * L::kStride + d + lane / 16 * 8);
#pragma unroll
        for (int r = 0; r < kRowTiles; ++r) {
          device::MmaBf16(out[r][d / 8], a[r], b[0], b[1]);
          device::MmaBf16(out[r][d / 8 + 1], a[r], b[2], b[3]);
        }
      }
    }
    __syncthreads();  // before the next copies overwrite this stage
  }

#pragma unroll
  for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float sum = row_sum[r][h];
      sum += __shfl_xor_sync(0xffffffffu, sum, 1);
      sum += __shfl_xor_sync(0xffffffffu, sum, 2);
      const int row = tile.first + warp * 16 * kRowTiles + r * 16 + lane / 4 + h * 8;
      if (row >= block.num_rows) continue;
      const float inverse = 1.0f / sum;
      bf16* to = p.out + row_number(row) * p.out_stride + head * D + lane % 4 * 2;
#pragma unroll
      for (int n = 0; n < D / 8; ++n) {
        *reinterpret_cast<uint32_t*>(to + n * 8) =
            device::PackPair(out[r][n][h * 2] * inverse, out[r][n][h * 2 + 1] * inverse);
      }
    }
  }
}

template <int D>
cudaError_t Launch(const FlashArgs& args, cudaStream_t stream) {
  constexpr int kBytes = Layout<D>::kBytes;
  const cudaError_t error =
      cudaFuncSetAttribute(FlashKernel<D>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (error != cudaSuccess) return error;
  const float scale_log2 = 1.4426950408889634f / sqrtf(static_cast<float>(D));
  FlashKernel<D><<<dim3(args.num_tiles, args.heads), kWarps * 32, kBytes, stream>>>(args, scale_log2);
  return cudaGetLastError();
}

}  // namespace

cudaError_t FlashAttention(const FlashArgs& args, cudaStream_t stream) {
  if (args.num_tiles == 0 || args.heads == 0) return cudaSuccess;
  switch (args.head_dim) {
    case 128:
      return Launch<128>(args, stream);
    case 80:
      return Launch<80>(args, stream);
    case 64:
      return Launch<64>(args, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace lancet::cuda
