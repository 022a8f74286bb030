// Softmax attention of single rows over long caches (text decoding, the markers around pictures). The keys of
// a row are dealt out, in tiles of kSplitKeys, to the blocks of a cluster; each block goes over its tiles
// with a running maximum, then the blocks' results are added up in their order.
//
// A row's result depends on its query and the visible keys alone, to the bit. Devices before sm_90 have no
// clusters: one block has all tiles there.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "common/bf16.h"
#include "kernels/cuda/flash_attention.h"
#include "kernels/cuda/launch_overlap.h"
#include "kernels/cuda/qk_rope.h"

namespace lancet::cuda {

inline constexpr int kSplitKeys = 64;
inline constexpr int kSplitBlocks = 8;
inline constexpr int kMaxGroup = 8;  // query heads per key/value head

// Row `index` of a block.
struct AttentionRow {
  int32_t block = 0;
  int32_t index = 0;
};

struct SplitArgs {
  // If set: what QkNormRope would have done for these rows is done on the way, to the same bits. Every row is
  // the only one of its block; `rope.rows` is not used, `q` and `q_stride` are rope.qkv and rope.stride. The
  // other keys were cached before the pass that this launch is part of.
  bool fresh = false;
  QkRopeArgs rope;

  const bf16* q = nullptr;  // as in FlashArgs
  int64_t q_stride = 0;
  bf16* out = nullptr;
  int64_t out_stride = 0;
  const AttentionBlock* blocks = nullptr;  // device
  const AttentionRow* rows = nullptr;      // device
  int num_rows = 0;
  int kv_heads = 0;
  int group = 1;     // at most kMaxGroup
  int head_dim = 0;  // 128 or 64
  int layer = 0;

  // Other than kNone only if the kernel before is one of this stream's.
  LaunchOverlap overlap = LaunchOverlap::kOne;
};

cudaError_t SplitAttention(const SplitArgs& args, cudaStream_t stream);

}  // namespace lancet::cuda
