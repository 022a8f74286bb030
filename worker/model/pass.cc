#include "worker/model/pass.h"

#include <algorithm>

namespace lancet {

PassBlock& Pass::AddBlock(KvCache* cache, bool append, bool causal) {
  PassBlock& block = blocks_.emplace_back();
  block.cache = cache;
  block.append = append;
  block.causal = causal;
  return block;
}

void Pass::AddRow(bool gen, bool wide, int32_t t, int32_t h, int32_t w) {
  Rows& rows = gen ? gen_ : und_;
  const int32_t index = static_cast<int32_t>(rows.wide.size());
  rows.positions.t.push_back(t);
  rows.positions.h.push_back(h);
  rows.positions.w.push_back(w);
  rows.wide.push_back(wide ? 1 : 0);
  rows.single.push_back(wide && !gen ? 1 : 0);
  blocks_.back().rows.push_back(gen ? -1 - index : index);
}

void Pass::AddAnswer(KvCache* cache, int32_t position) {
  AddBlock(cache, /*append=*/true, /*causal=*/true);
  AddRow(/*gen=*/false, /*wide=*/false, position, position, position);
  und_.single.back() = 1;
}

void Pass::AddText(KvCache* cache, const Positions& positions, int64_t begin, int64_t count) {
  AddBlock(cache, /*append=*/true, /*causal=*/true);
  for (int64_t i = begin; i < begin + count; ++i) {
    AddRow(/*gen=*/false, /*wide=*/false, positions.t[i], positions.h[i], positions.w[i]);
  }
}

void Pass::AddAnswered(KvCache* cache, const Positions& positions, int64_t begin, int64_t count) {
  AddText(cache, positions, begin, count);
  std::fill_n(und_.single.end() - count, count, uint8_t{1});
}

void Pass::AddVision(KvCache* cache, const Positions& positions) {
  AddBlock(cache, /*append=*/true, /*causal=*/false);
  for (size_t i = 0; i < positions.t.size(); ++i) {
    AddRow(/*gen=*/false, /*wide=*/false, positions.t[i], positions.h[i], positions.w[i]);
  }
}

void Pass::AddLatents(KvCache* cache, const Positions& positions, bool append) {
  AddBlock(cache, append, /*causal=*/false);
  const size_t count = positions.t.size();
  for (size_t i = 0; i < count; ++i) {
    const bool marker = i == 0 || i + 1 == count;
    AddRow(/*gen=*/!marker, /*wide=*/true, positions.t[i], positions.h[i], positions.w[i]);
  }
}

void Pass::Finish() {
  const int32_t und = static_cast<int32_t>(und_rows());
  for (PassBlock& block : blocks_) {
    for (int32_t& row : block.rows) {
      if (row < 0) row = und + (-1 - row);
    }
  }
}

std::vector<uint8_t> Pass::Wide() const {
  std::vector<uint8_t> wide = und_.wide;
  wide.insert(wide.end(), gen_.wide.begin(), gen_.wide.end());
  return wide;
}

std::vector<uint8_t> Pass::Single() const {
  std::vector<uint8_t> single = und_.single;
  single.insert(single.end(), gen_.single.begin(), gen_.single.end());
  return single;
}

Positions Pass::RowPositions() const {
  Positions all = und_.positions;
  all.t.insert(all.t.end(), gen_.positions.t.begin(), gen_.positions.t.end());
  all.h.insert(all.h.end(), gen_.positions.h.begin(), gen_.positions.h.end());
  all.w.insert(all.w.end(), gen_.positions.w.begin(), gen_.positions.w.end());
  return all;
}

}  // namespace lancet
