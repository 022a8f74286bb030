// Attention of one thread over packed keys and values, per instruction set. Plain data and function pointers
// only, as in nvfp4_kernel.h; bf16 values are bit patterns.
//
// Keys of a key/value head are packed like weights, in panels of 16 keys: [key panel][head_dim /
// unit_cols][16] units, so that scores are products of packed query rows with key panels. Values are packed
// in panels of 16 dimensions, [head_dim panel][key unit][16], so that outputs are products of probability
// rows with them. Keys are padded to whole panels, dimensions of values too, both with zeros.
//
// Keys that several calls read are packed beforehand, for all of them (pack). Where one call does all rows of
// a key/value head (a decoded token), it packs block by block into its own scratch just before use: the same
// values in the same order, but nothing goes through memory twice.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lancet {

// Consecutive keys and values of one key/value head as they lie in a cache or a pass.
struct KeySpan {
  const uint16_t* k = nullptr;
  int64_t k_stride = 0;  // elements from one key to the next
  const uint16_t* v = nullptr;
  int64_t v_stride = 0;
  int64_t count = 0;
};

// Query rows of one key/value head. The heads that share it are stacked: stacked row r is block row r / group
// of head heads[r % group], so that one decoded token still fills a register tile.
struct AttentionKernelArgs {
  int64_t head_dim = 0;            // even, at most 256
  float score_scale = 0;           // 1 / sqrt(head_dim)
  const int32_t* heads = nullptr;  // [group] query heads
  int64_t group = 0;
  const uint16_t* q = nullptr;
  int64_t q_stride = 0;
  uint16_t* out = nullptr;
  int64_t out_stride = 0;
  const int32_t* rows = nullptr;  // rows of q and out, by block row
  int64_t stacked_begin = 0;      // stacked rows to do: at most max_rows of the kernel
  int64_t stacked_end = 0;
  const uint32_t* k = nullptr;  // packed; null: what spans say
  const uint32_t* v = nullptr;
  int64_t v_stride = 0;            // of v: units from one panel of dimensions to the next
  const KeySpan* spans = nullptr;  // together all keys, in order
  int64_t keys = 0;                // without padding: past, then the block
  int64_t past = 0;
  bool causal = false;
  std::byte* scratch = nullptr;  // KernelContext::kScratchBytes, 64-byte aligned
};

struct AttentionKernel {
  int unit_cols = 0;
  int max_rows = 0;  // stacked rows per call of run
  // Packs 16 keys and their values. keys, values: 16 rows of head_dim. v_stride: units from one panel of
  // dimensions to the next.
  void (*pack)(const uint16_t* const* keys, const uint16_t* const* values, int64_t head_dim, uint32_t* k,
               uint32_t* v, int64_t v_stride) = nullptr;
  void (*run)(const AttentionKernelArgs& args) = nullptr;
};

AttentionKernel AttentionKernelPortable();
AttentionKernel AttentionKernelAvx2();
AttentionKernel AttentionKernelAvx512();
AttentionKernel AttentionKernelAvx512Bf16();

}  // namespace lancet
