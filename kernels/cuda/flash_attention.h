// Softmax attention of blocks of rows over their sequences' caches, one launch for all blocks of a pass. Each
// tile of query rows streams over the keys once (no matrix of scores in memory); warp-level products, sm_80
// and later.
//
// Scores, softmax and output sums are f32, probabilities are rounded to bf16 for the second product, the
// output once. A row's result depends on its query and the visible keys alone, to the bit.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "common/bf16.h"

namespace lancet::cuda {

// Rows of one sequence. Its keys and values, those of the block included, lie in its cache: key j of layer l
// at base + l * layer_stride + j * kv_stride, its value v_offset behind.
struct AttentionBlock {
  const bf16* base = nullptr;
  int64_t layer_stride = 0;
  int64_t v_offset = 0;
  int64_t kv_stride = 0;
  const int32_t* rows =
      nullptr;  // device: rows of q and out, in sequence order; null: first_row, first_row + 1, ...
  int32_t first_row = 0;
  int32_t num_rows = 0;
  int32_t num_keys = 0;  // all, those of the block last
  int32_t causal = 0;    // row i sees the first num_keys - num_rows + i + 1 keys; otherwise all
};

// A tile: query rows [first, first + kQueryTile) of a block.
struct AttentionTile {
  int32_t block = 0;
  int32_t first = 0;
};
inline constexpr int kQueryTile = 128;

struct FlashArgs {
  const bf16* q = nullptr;  // [rows, heads * head_dim], rows q_stride apart
  int64_t q_stride = 0;
  bf16* out = nullptr;  // likewise
  int64_t out_stride = 0;
  const AttentionBlock* blocks = nullptr;  // device
  const AttentionTile* tiles = nullptr;    // device
  int num_tiles = 0;
  int heads = 0;
  int group = 1;     // query heads per key/value head; head h reads h / group
  int head_dim = 0;  // 128, 80 or 64
  int layer = 0;
};

cudaError_t FlashAttention(const FlashArgs& args, cudaStream_t stream);

}  // namespace lancet::cuda
