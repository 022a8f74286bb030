// One packed pass of the trunk: rows of one or several sequences, gathered so that each Linear runs once per
// expert over all its rows, whoever they belong to.
#pragma once

#include <cstdint>
#include <vector>

#include "common/request_plan.h"
#include "worker/model/kv_cache.h"

namespace lancet {

// The rows that one sequence contributes: they attend to each other and to the sequence's cache.
struct PassBlock {
  KvCache* cache = nullptr;   // never null; outlives the pass
  bool append = false;        // add the block's keys and values to the cache
  bool causal = false;        // a row sees the block's rows up to itself; otherwise all of them
  std::vector<int32_t> rows;  // rows of the pass, in sequence order
};

// Which rows a pass has. All und rows come first, then all gen rows, each in the order they were added; so a
// row's expert follows from its number.
class Pass {
 public:
  // One token of an answer: a single und row, cached.
  void AddAnswer(KvCache* cache, int32_t position);
  // Rows [begin, begin + count) of a run of text tokens, all und, causal, cached.
  void AddText(KvCache* cache, const Positions& positions, int64_t begin, int64_t count);
  // Likewise of what was fed for tokens of an answer: single rows.
  void AddAnswered(KvCache* cache, const Positions& positions, int64_t begin, int64_t count);
  // A start marker, features of a picture and an end marker: all und, all see each other, cached.
  void AddVision(KvCache* cache, const Positions& positions);
  // A start marker (und), latents (gen) and an end marker (und), which all see each other. Cached if they are
  // a condition, not if they are the target.
  void AddLatents(KvCache* cache, const Positions& positions, bool append);
  // A row of either kind, for tests that take a block apart: appended to the last block. Und rows that are
  // wide are markers, which are single.
  PassBlock& AddBlock(KvCache* cache, bool append, bool causal);
  void AddRow(bool gen, bool wide, int32_t t, int32_t h, int32_t w);

  // Ends construction: turns gen rows into rows behind the und rows.
  void Finish();

  int64_t und_rows() const { return static_cast<int64_t>(und_.wide.size()); }
  int64_t gen_rows() const { return static_cast<int64_t>(gen_.wide.size()); }
  int64_t rows() const { return und_rows() + gen_rows(); }
  const std::vector<PassBlock>& blocks() const { return blocks_; }
  // Per row, und rows first. wide: keep q and k in f32 from projection to rotation (rows of blocks that hold
  // latents).
  std::vector<uint8_t> Wide() const;
  // Per row likewise. single: the und rows that come one or two at a time whoever shares the pass: tokens of
  // answers, the markers around latents. A GPU multiplies them by a kernel of their own (worker/cuda/).
  std::vector<uint8_t> Single() const;
  Positions RowPositions() const;

 private:
  struct Rows {
    Positions positions;
    std::vector<uint8_t> wide;
    std::vector<uint8_t> single;
  };
  Rows und_;
  Rows gen_;
  std::vector<PassBlock> blocks_;  // before Finish, gen row g is stored as -1 - g
};

}  // namespace lancet
