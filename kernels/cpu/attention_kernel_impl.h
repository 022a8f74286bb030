// Attention, written once over the primitives of an instruction set `S`. Keys are walked in blocks that begin
// at fixed places; a row keeps a running maximum, sum and output (f32) and rescales them when the maximum
// grows. Probabilities are rounded to bf16 for the second product, their sum is taken before that.
#pragma once

#include <cstdint>

#include "kernels/cpu/attention_kernel.h"
#include "kernels/cpu/simd_math.h"
#include "kernels/cpu/tile_product.h"

namespace lancet {

template <typename S>
struct AttentionImpl {
  using F = typename S::F;
  static constexpr int64_t kMaxHeadDim = 256;
  static constexpr int64_t kKeyBlock = 256;  // keys and values of a block stay in the L2 cache
  static constexpr int64_t kTiles = 32 / S::kTileRows;
  static constexpr int64_t kRows = kTiles * S::kTileRows;

  // Everything a call keeps in scratch.
  struct State {
    alignas(64) uint32_t q[kRows * kMaxHeadDim];
    alignas(64) float out[kRows * kMaxHeadDim];
    alignas(64) float scores[S::kTileRows * kKeyBlock];
    alignas(64) uint16_t probs[S::kTileRows * kKeyBlock];
    alignas(64) uint32_t packed_probs[S::kTileRows * kKeyBlock];
    alignas(64) uint32_t k[kKeyBlock * kMaxHeadDim / S::kUnitCols];  // of a block packed here
    alignas(64) uint32_t v[kKeyBlock * kMaxHeadDim / S::kUnitCols];
    float max[kRows];
    float sum[kRows];
  };
  static_assert(sizeof(State) <= (1 << 20));

  static int64_t RoundUp(int64_t n) { return (n + kPanelCols - 1) / kPanelCols * kPanelCols; }
  static int64_t Min(int64_t a, int64_t b) { return a < b ? a : b; }

  static void Pack(const uint16_t* const* keys, const uint16_t* const* values, int64_t head_dim, uint32_t* k,
                   uint32_t* v, int64_t v_stride) {
    PackTile<S>(keys, kPanelCols, head_dim, k);
    for (int64_t d = 0; d < head_dim; d += kPanelCols) {
      uint32_t* panel = v + d / kPanelCols * v_stride;
      const int64_t n = Min(kPanelCols, head_dim - d);
      for (int u = 0; u < kPanelCols / S::kUnitCols; ++u) {
        const uint16_t* first = values[u * S::kUnitCols] + d;
        const uint16_t* second = values[u * S::kUnitCols + S::kUnitCols - 1] + d;
        uint32_t* units = panel + u * kPanelCols;
        if (n == kPanelCols) {  // an extent that the compiler knows
          for (int64_t i = 0; i < kPanelCols; ++i) units[i] = ValueUnit(first[i], second[i]);
          continue;
        }
        for (int64_t i = 0; i < n; ++i) units[i] = ValueUnit(first[i], second[i]);
        for (int64_t i = n; i < kPanelCols; ++i) units[i] = 0;
      }
    }
  }

  static uint32_t ValueUnit(uint16_t first, uint16_t second) {
    return S::kUnitCols == 2 ? first | static_cast<uint32_t>(second) << 16
                             : static_cast<uint32_t>(first) << 16;
  }

  // Packed keys of a block and the values beside them.
  struct PackedBlock {
    const uint32_t* k;
    const uint32_t* v;
    int64_t v_stride;
  };

  // The next key of the spans.
  struct Cursor {
    const KeySpan* span;
    int64_t row = 0;
  };

  // Packs `keys` keys (a multiple of 16) from the cursor on; beyond the last one of `left` come zeros.
  static PackedBlock PackBlock(const AttentionKernelArgs& args, State* state, int64_t keys, int64_t left,
                               Cursor* cursor) {
    static const uint16_t zeros[kMaxHeadDim] = {};
    const int64_t v_stride = keys / S::kUnitCols * kPanelCols;
    const int64_t k_panel = args.head_dim / S::kUnitCols * kPanelCols;
    for (int64_t panel = 0; panel < keys / kPanelCols; ++panel) {
      const uint16_t* k_rows[kPanelCols];
      const uint16_t* v_rows[kPanelCols];
      for (int i = 0; i < kPanelCols; ++i, --left) {
        k_rows[i] = v_rows[i] = zeros;
        if (left <= 0) continue;
        while (cursor->row == cursor->span->count) *cursor = {cursor->span + 1, 0};
        k_rows[i] = cursor->span->k + cursor->row * cursor->span->k_stride;
        v_rows[i] = cursor->span->v + cursor->row * cursor->span->v_stride;
        ++cursor->row;
      }
      Pack(k_rows, v_rows, args.head_dim, state->k + panel * k_panel,
           state->v + panel * kPanelCols / S::kUnitCols * kPanelCols, v_stride);
    }
    return {state->k, state->v, v_stride};
  }

  // Keys that a stacked row sees.
  static int64_t Visible(const AttentionKernelArgs& args, int64_t stacked) {
    return args.causal ? args.past + stacked / args.group + 1 : args.keys;
  }

  static const uint16_t* QueryRow(const AttentionKernelArgs& args, int64_t stacked) {
    return args.q + args.rows[stacked / args.group] * args.q_stride +
           args.heads[stacked % args.group] * args.head_dim;
  }

  // Scores of `rows` query rows against `panels` key panels.
  static void Scores(const AttentionKernelArgs& args, State* state, const uint32_t* q, int rows,
                     const uint32_t* k, int64_t panels) {
    TileProductArgs product;
    product.rows = q;
    product.units = args.head_dim / S::kUnitCols;
    product.panel_stride = product.units * kPanelCols;
    product.c_stride = kKeyBlock;
    product.panels = k;
    product.c = state->scores;
    RunTilePanels<S>(rows, panels, product);
  }

  // Turns one row of scores into probabilities relative to the row's new maximum; returns the factor by which
  // what was summed before shrinks. `visible` of `keys` (a multiple of 16) count; the others become zero.
  static float Softmax(float* scores, uint16_t* probs, int64_t visible, int64_t keys, float scale, bool first,
                       float* max, float* sum) {
    F lanes_max = S::Set1(-__builtin_inff());
    int64_t i = 0;
    for (; i + S::kLanes <= visible; i += S::kLanes) lanes_max = S::Max(S::Load(scores + i), lanes_max);
    float block_max = S::ReduceMax(lanes_max);
    for (; i < visible; ++i) block_max = scores[i] > block_max ? scores[i] : block_max;
    block_max *= scale;
    const float new_max = first || block_max > *max ? block_max : *max;
    const F shift = S::Set1(new_max);
    F total = S::Set1(0.0f);
    for (i = 0; i < keys; i += S::kLanes) {
      F p = S::Set1(0.0f);
      if (i < visible) {
        p = ExpBelowZero<S>(S::Load(scores + i) * S::Set1(scale) - shift);
        if (visible - i < S::kLanes) p = S::KeepFirst(p, visible - i);
      }
      total = total + p;
      S::StoreProbability(probs + i, p);
    }
    float shrink = 0.0f;
    if (!first) {
      float lanes[S::kLanes];
      S::Store(lanes, ExpBelowZero<S>(S::Set1(*max - new_max)));
      shrink = lanes[0];
    }
    *sum = *sum * shrink + S::ReduceAdd(total);
    *max = new_max;
    return shrink;
  }

  // One tile of rows against one block of keys.
  static void Block(const AttentionKernelArgs& args, State* state, int64_t tile_begin, int rows,
                    int64_t key_begin, const PackedBlock& packed) {
    const int64_t first_row = tile_begin - args.stacked_begin;
    const int64_t dims = RoundUp(args.head_dim);
    const int64_t keys = RoundUp(Min(kKeyBlock, args.keys - key_begin));
    Scores(args, state, state->q + first_row * (args.head_dim / S::kUnitCols), rows, packed.k,
           keys / kPanelCols);
    const uint16_t* prob_rows[S::kTileRows];
    for (int m = 0; m < rows; ++m) {
      const int64_t row = first_row + m;
      uint16_t* probs = state->probs + m * kKeyBlock;
      prob_rows[m] = probs;
      int64_t visible = Visible(args, tile_begin + m) - key_begin;
      if (visible <= 0) {
        for (int64_t i = 0; i < keys; ++i) probs[i] = 0;
        continue;
      }
      visible = Min(visible, Min(keys, args.keys - key_begin));
      const float shrink = Softmax(state->scores + m * kKeyBlock, probs, visible, keys, args.score_scale,
                                   key_begin == 0, &state->max[row], &state->sum[row]);
      if (key_begin == 0 || shrink == 1.0f) continue;
      float* out = state->out + row * dims;
      for (int64_t d = 0; d < dims; d += S::kLanes) S::Store(out + d, S::Load(out + d) * S::Set1(shrink));
    }
    PackTile<S>(prob_rows, rows, keys, state->packed_probs);
    TileProductArgs product;
    product.rows = state->packed_probs;
    product.units = keys / S::kUnitCols;
    product.panel_stride = packed.v_stride;
    product.c_stride = dims;
    product.accumulate = key_begin > 0;
    product.panels = packed.v;
    product.c = state->out + first_row * dims;
    RunTilePanels<S>(rows, dims / kPanelCols, product);
  }

  static void StoreOut(const AttentionKernelArgs& args, const State& state, int64_t stacked) {
    const int64_t row = stacked - args.stacked_begin;
    const float* sums = state.out + row * RoundUp(args.head_dim);
    const F inverse = S::Set1(1.0f / state.sum[row]);
    uint16_t* out = args.out + args.rows[stacked / args.group] * args.out_stride +
                    args.heads[stacked % args.group] * args.head_dim;
    for (int64_t d = 0; d < args.head_dim; d += S::kLanes) {
      S::StoreBf16N(out + d, S::Load(sums + d) * inverse, Min(S::kLanes, args.head_dim - d));
    }
  }

  static void Run(const AttentionKernelArgs& args) {
    State* state = reinterpret_cast<State*>(args.scratch);
    for (int64_t t = args.stacked_begin; t < args.stacked_end; t += S::kTileRows) {
      const int rows = static_cast<int>(Min(S::kTileRows, args.stacked_end - t));
      const uint16_t* q_rows[S::kTileRows];
      for (int m = 0; m < rows; ++m) {
        q_rows[m] = QueryRow(args, t + m);
        state->sum[t + m - args.stacked_begin] = 0.0f;
      }
      PackTile<S>(q_rows, rows, args.head_dim,
                  state->q + (t - args.stacked_begin) * (args.head_dim / S::kUnitCols));
    }
    Cursor cursor{args.spans};
    for (int64_t key_begin = 0; key_begin < args.keys; key_begin += kKeyBlock) {
      if (Visible(args, args.stacked_end - 1) <= key_begin) break;
      const PackedBlock packed =
          args.k == nullptr ? PackBlock(args, state, RoundUp(Min(kKeyBlock, args.keys - key_begin)),
                                        args.keys - key_begin, &cursor)
                            : PackedBlock{args.k + key_begin * (args.head_dim / S::kUnitCols),
                                          args.v + key_begin / S::kUnitCols * kPanelCols, args.v_stride};
      for (int64_t t = args.stacked_begin; t < args.stacked_end; t += S::kTileRows) {
        const int rows = static_cast<int>(Min(S::kTileRows, args.stacked_end - t));
        if (Visible(args, t + rows - 1) > key_begin) Block(args, state, t, rows, key_begin, packed);
      }
    }
    for (int64_t t = args.stacked_begin; t < args.stacked_end; ++t) StoreOut(args, *state, t);
  }

  static AttentionKernel Kernel() {
    AttentionKernel kernel;
    kernel.unit_cols = S::kUnitCols;
    kernel.max_rows = kRows;
    kernel.pack = &Pack;
    kernel.run = &Run;
    return kernel;
  }
};

}  // namespace lancet
