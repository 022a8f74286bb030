// Softmax attention of single rows over long caches (text decoding, the markers around pictures): the keys of
// a row are split over blocks of threads, whose partial results the last one to finish adds up in the order
// of the keys.
//
// A row's result depends on its query and the visible keys alone, to the bit: splits begin at multiples of
// kSplitKeys.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "common/bf16.h"
#include "kernels/cuda/flash_attention.h"
#include "kernels/cuda/qk_rope.h"

namespace lancet::cuda {

inline constexpr int kSplitKeys = 128;
inline constexpr int kMaxGroup = 8;  // query heads per key/value head

// Row `index` of a block.
struct AttentionRow {
  int32_t block = 0;
  int32_t index = 0;
};

struct SplitArgs {
  // If set: what QkNormRope would have done for these rows is done on the way, to the same bits. Every row is
  // the only one of its block; `rope.rows` is not used, `q` and `q_stride` are rope.qkv and rope.stride.
  bool fresh = false;
  QkRopeArgs rope;

  const bf16* q = nullptr;  // as in FlashArgs
  int64_t q_stride = 0;
  bf16* out = nullptr;
  int64_t out_stride = 0;
  const AttentionBlock* blocks = nullptr;  // device
  const AttentionRow* rows = nullptr;      // device
  int num_rows = 0;
  int max_splits = 0;  // of the longest row: ceil(keys / kSplitKeys)
  int kv_heads = 0;
  int group = 1;     // at most kMaxGroup
  int head_dim = 0;  // 128 or 64
  int layer = 0;
  float* partial = nullptr;  // SplitScratchFloats(...)
  uint32_t* tickets =
      nullptr;  // num_rows * kv_heads, zero before the first launch; every launch leaves zeros
};

constexpr int64_t SplitScratchFloats(int64_t num_rows, int64_t kv_heads, int64_t max_splits,
                                     int64_t head_dim) {
  return num_rows * kv_heads * max_splits * kMaxGroup * (head_dim + 2);
}

cudaError_t SplitAttention(const SplitArgs& args, cudaStream_t stream);

}  // namespace lancet::cuda
