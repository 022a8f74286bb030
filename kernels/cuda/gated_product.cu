// Two blocks of a cluster share a tile of weights: each brings half of it to both, and the tile of
// activations that is its own. In a block one thread of the first warp group feeds a ring of tiles; the other
// two groups multiply, 64 rows each, and turn sums into results while the ring fills with the next tile.

#include <cuda.h>

#include <algorithm>

#include "kernels/cuda/device/bf16_math.cuh"
#include "kernels/cuda/device/cluster.cuh"
#include "kernels/cuda/device/hopper.cuh"
#include "kernels/cuda/device/programmatic_launch.cuh"
#include "kernels/cuda/few_rows_linear.h"
#include "kernels/cuda/gated_product.h"

namespace lancet::cuda {
namespace {

constexpr int kTileTokens = 128;
constexpr int kTileRows = 256;  // of weights: half as many results
constexpr int kRowBytes = 128;  // of a tile: 64 columns in bf16, 128 in E4M3
constexpr int kStages = 4;
constexpr int kCluster = 2;
constexpr int kGroup = 128;  // threads of a warp group
constexpr int kThreads = 3 * kGroup;
constexpr int kXBytes = kTileTokens * kRowBytes;
constexpr int kWBytes = kTileRows * kRowBytes;
constexpr int kStageBytes = kXBytes + kWBytes;
// Tiles lie at multiples of 1024, barriers behind them.
constexpr int kSharedBytes = 1024 + kStages * kStageBytes + 2 * kStages * 8;
static_assert(kGateUpTurn == 8);

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define LANCET_HAS_GATED_PRODUCT 1
#endif

// In which order tiles are taken: pairs of token tiles are the fast index within groups of pairs, so that
// what runs at a time shares tiles of either operand in the L2 cache.
struct TileOrder {
  int pairs;  // of token tiles
  int group;  // pairs in a group; the last may have fewer
  int row_tiles;

#ifdef LANCET_HAS_GATED_PRODUCT
  __device__ __forceinline__ void Locate(int number, int* pair, int* row_tile) const {
    const int per_group = group * row_tiles;
    const int first = number / per_group * group;
    const int size = min(group, pairs - first);
    const int within = number % per_group;
    *pair = first + within % size;
    *row_tile = within / size;
  }
#endif
};

#ifdef LANCET_HAS_GATED_PRODUCT
// Trades `low` of the upper lane for `high` of the lower one, `distance` lanes apart.
__device__ __forceinline__ void Exchange(uint32_t& low, uint32_t& high, int distance, bool upper) {
  const uint32_t got = __shfl_xor_sync(0xffffffffu, upper ? low : high, distance);
  (upper ? low : high) = got;
}
#endif

// What E4M3 operands are multiplied with afterwards; null for bf16.
struct Factors {
  const float* tokens;
  const float* rows;
};

template <bool kE4m3>
__global__ void __launch_bounds__(kThreads, 1)
    GatedProductKernel(const __grid_constant__ CUtensorMap x_map, const __grid_constant__ CUtensorMap w_map,
                       TileOrder order, int steps, Factors factors, bf16* y, int tokens, int inner) {
#ifdef LANCET_HAS_GATED_PRODUCT
  constexpr int kTileCols = kE4m3 ? kRowBytes : kRowBytes / 2;
  extern __shared__ uint8_t raw[];
  uint8_t* const tiles = raw + (1024 - device::SharedAddress(raw) % 1024) % 1024;
  uint64_t* const full = reinterpret_cast<uint64_t*>(tiles + kStages * kStageBytes);
  uint64_t* const empty = full + kStages;
  const int rank = blockIdx.x % kCluster;
  const int group = threadIdx.x / kGroup;
  if (threadIdx.x == 0) {
    for (int s = 0; s < kStages; ++s) {
      device::InitBarrier(full + s, 1);
      device::InitBarrier(empty + s, 2 * kCluster);  // both multiplying groups of both blocks
    }
    device::PublishBarriers();
  }
  device::SyncCluster();
  const int num_tiles = order.pairs * order.row_tiles;
  const int first_tile = blockIdx.x / kCluster;
  const int tile_step = gridDim.x / kCluster;
  int stage = 0;
  uint32_t parity = 0;
  const auto advance = [&] {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  };

  if (group == 0) {
    device::LowerRegisters<40>();
    if (threadIdx.x == 0) {
      for (int number = first_tile; number < num_tiles; number += tile_step) {
        int pair;
        int row_tile;
        order.Locate(number, &pair, &row_tile);
        const int token = (pair * kCluster + rank) * kTileTokens;
        const int row = row_tile * kTileRows + rank * (kTileRows / kCluster);
        for (int step = 0; step < steps; ++step) {
          device::WaitForPhase(empty + stage, parity ^ 1);
          device::ArriveExpecting(full + stage, kStageBytes);
          uint8_t* const x_tile = tiles + stage * kStageBytes;
          uint8_t* const w_tile = x_tile + kXBytes + rank * (kWBytes / kCluster);
          device::CopyBox(x_tile, &x_map, step * kTileCols, token, full + stage);
          device::CopyBoxToBlocks(w_tile, &w_map, step * kTileCols, row, full + stage, (1 << kCluster) - 1);
          advance();
        }
      }
    }
  } else {
    device::RaiseRegisters<232>();
    const int thread = threadIdx.x % kGroup;
    const int lane = thread % 32;
    // Both blocks wait for this group before they overwrite its operands.
    const auto release = [&](int which) {
      if (thread < kCluster) device::ArriveAt(empty + which, thread);
    };
    float sums[128];
    for (int number = first_tile; number < num_tiles; number += tile_step) {
      int pair;
      int row_tile;
      order.Locate(number, &pair, &row_tile);
      for (int step = 0; step < steps; ++step) {
        device::WaitForPhase(full + stage, parity);
        const uint8_t* const x_tile = tiles + stage * kStageBytes + (group - 1) * (kXBytes / 2);
        const uint64_t x = device::TileDescriptor(x_tile);
        const uint64_t w = device::TileDescriptor(tiles + stage * kStageBytes + kXBytes);
        device::BeginProducts();
#pragma unroll
        for (int k = 0; k < kRowBytes / 32; ++k) {
          // Descriptors count bytes in 16s.
          if constexpr (kE4m3) {
            device::GroupMma64x256E4m3(sums, x + 2 * k, w + 2 * k, step > 0 || k > 0);
          } else {
            device::GroupMma64x256(sums, x + 2 * k, w + 2 * k, step > 0 || k > 0);
          }
        }
        device::CommitProducts();
        // The products of the step before are done; these may still run.
        device::WaitProducts<1>();
        if (step > 0) release(stage == 0 ? kStages - 1 : stage - 1);
        advance();
      }
      device::WaitProducts<0>();
      release(stage == 0 ? kStages - 1 : stage - 1);
      device::KeepBehind(sums);

      // Results p of 16 have eight columns each: gate in sums 8p..8p+3, up in the four behind.
      const int token =
          (pair * kCluster + rank) * kTileTokens + (group - 1) * 64 + thread / 32 * 16 + lane / 4;
      const int col = row_tile * (kTileRows / 2);
      const int part = lane % 4;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = token + 8 * half;
        bf16* const to = y + static_cast<int64_t>(row) * inner + col;
        const float token_factor = kE4m3 && row < tokens ? factors.tokens[row] : 1.0f;
#pragma unroll
        for (int q = 0; q < 4; ++q) {
          uint32_t word[4];
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const float* s = sums + 8 * (4 * q + i) + 2 * half;
            float gate[2] = {s[0], s[1]};
            float up[2] = {s[4], s[5]};
            if constexpr (kE4m3) {
              const float* of_gate = factors.rows + 2 * (col + 8 * (4 * q + i)) + 2 * part;
#pragma unroll
              for (int j = 0; j < 2; ++j) {
                gate[j] *= token_factor * of_gate[j];
                up[j] *= token_factor * of_gate[kGateUpTurn + j];
              }
            }
            const uint32_t rounded = device::PackPair(gate[0], gate[1]);
            word[i] = device::MulPair(device::PackPair(device::SiluOf(device::LowHalf(rounded)),
                                                       device::SiluOf(device::HighHalf(rounded))),
                                      device::PackPair(up[0], up[1]));
          }
          // Lane `part` of four gets all of result 4q + part, whole 16 bytes to write: a transposition.
          Exchange(word[0], word[1], 1, part % 2 != 0);
          Exchange(word[2], word[3], 1, part % 2 != 0);
          Exchange(word[0], word[2], 2, part / 2 != 0);
          Exchange(word[1], word[3], 2, part / 2 != 0);
          if (row < tokens) {
            *reinterpret_cast<uint4*>(to + 8 * (4 * q + part)) =
                make_uint4(word[0], word[1], word[2], word[3]);
          }
        }
      }
    }
  }
  // Nobody leaves while the other block copies into its memory.
  __syncwarp();
  device::SyncCluster();
#endif
}

using EncodeTiled = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*,
                                 const cuuint64_t*, const cuuint32_t*, const cuuint32_t*,
                                 CUtensorMapInterleave, CUtensorMapSwizzle, CUtensorMapL2promotion,
                                 CUtensorMapFloatOOBfill);

// The driver's function, without linking to the driver: programs also run where there is none.
cudaError_t FindEncodeTiled(EncodeTiled* function) {
  void* entry = nullptr;
  cudaDriverEntryPointQueryResult found;
  const cudaError_t error =
      cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000, cudaEnableDefault, &found);
  if (error != cudaSuccess) return error;
  if (found != cudaDriverEntryPointSuccess) return cudaErrorNotSupported;
  *function = reinterpret_cast<EncodeTiled>(entry);
  return cudaSuccess;
}

// Of a [rows, cols] matrix, in boxes of box_rows x 128 bytes.
cudaError_t MakeMap(EncodeTiled encode, const void* matrix, bool e4m3, int64_t rows, int64_t cols,
                    int box_rows, CUtensorMap* map) {
  const int width = e4m3 ? 1 : 2;
  const cuuint64_t extents[2] = {static_cast<cuuint64_t>(cols), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(cols * width)};
  const cuuint32_t box[2] = {static_cast<cuuint32_t>(kRowBytes / width), static_cast<cuuint32_t>(box_rows)};
  const cuuint32_t steps[2] = {1, 1};
  const CUresult result = encode(map, e4m3 ? CU_TENSOR_MAP_DATA_TYPE_UINT8 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                                 2, const_cast<void*>(matrix), extents, strides, box, steps,
                                 CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                 CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

}  // namespace

bool HasGatedProduct(int64_t inner, int64_t cols) {
  int device = 0;
  int major = 0;
  int minor = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) != cudaSuccess ||
      cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) != cudaSuccess) {
    return false;
  }
  return major == 9 && minor == 0 && inner > 0 && cols > 0 && inner % (kTileRows / 2) == 0 &&
         cols % kRowBytes == 0;
}

cudaError_t GatedProduct(const GatedProductArgs& args, cudaStream_t stream) {
  if (!HasGatedProduct(args.inner, args.cols)) return cudaErrorNotSupported;
  if (args.tokens == 0) return cudaSuccess;
  EncodeTiled encode = nullptr;
  cudaError_t error = FindEncodeTiled(&encode);
  if (error != cudaSuccess) return error;
  CUtensorMap x_map;
  CUtensorMap w_map;
  const bool e4m3 = args.x_factors != nullptr;
  const auto kernel = e4m3 ? GatedProductKernel<true> : GatedProductKernel<false>;
  error = MakeMap(encode, args.x, e4m3, args.tokens, args.cols, kTileTokens, &x_map);
  if (error == cudaSuccess) {
    error = MakeMap(encode, args.gate_up, e4m3, 2 * args.inner, args.cols, kTileRows / kCluster, &w_map);
  }
  if (error == cudaSuccess) error = AllowShared(kernel, kSharedBytes);
  int device = 0;
  int multiprocessors = 0;
  if (error == cudaSuccess) error = cudaGetDevice(&device);
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  }
  if (error != cudaSuccess) return error;
  // Tokens at a time that stay in the L2 cache beside the weights they meet: up to 12 pairs of tiles.
  constexpr int kMostPairs = 12;
  TileOrder order;
  order.pairs = static_cast<int>((args.tokens + kCluster * kTileTokens - 1) / (kCluster * kTileTokens));
  const int groups = (order.pairs + kMostPairs - 1) / kMostPairs;
  order.group = (order.pairs + groups - 1) / groups;
  order.row_tiles = static_cast<int>(2 * args.inner / kTileRows);
  const int clusters = std::min(order.pairs * order.row_tiles, multiprocessors / kCluster);
  LaunchShape shape;
  shape.blocks = dim3(static_cast<unsigned>(clusters * kCluster));
  shape.threads = dim3(kThreads);
  shape.shared_bytes = kSharedBytes;
  shape.cluster = kCluster;
  shape.overlaps = false;
  return LaunchKernel(kernel, shape, stream, x_map, w_map, order,
                      static_cast<int>(args.cols * (e4m3 ? 1 : 2) / kRowBytes),
                      Factors{args.x_factors, args.gate_up_factors}, args.y, static_cast<int>(args.tokens),
                      static_cast<int>(args.inner));
}

}  // namespace lancet::cuda
