// Keys and values of one sequence on one rank, for every layer.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "common/bf16.h"
#include "common/tensor_view.h"

namespace lancet {

// Layout: per layer, [capacity, kv heads * head_dim] bf16 for keys (after norm and rotation) and the same for
// values. Memory is taken once, at construction.
class KvCache {
 public:
  KvCache(int64_t num_layers, int64_t capacity_tokens, int64_t kv_cols)
      : capacity_(capacity_tokens), kv_cols_(kv_cols), data_(num_layers * 2 * capacity_tokens * kv_cols) {}

  int64_t tokens() const { return tokens_; }
  int64_t capacity() const { return capacity_; }
  int64_t bytes() const { return static_cast<int64_t>(data_.size() * sizeof(bf16)); }

  // Cached rows of a layer: [tokens(), kv_cols].
  ConstMatrixView<bf16> Keys(int64_t layer) const { return {Base(layer, 0), tokens_, kv_cols_}; }
  ConstMatrixView<bf16> Values(int64_t layer) const { return {Base(layer, 1), tokens_, kv_cols_}; }

  // Memory of a row that is being appended: tokens() <= row < capacity(). Visible after Advance.
  bf16* KeyRow(int64_t layer, int64_t row) { return Base(layer, 0) + row * kv_cols_; }
  bf16* ValueRow(int64_t layer, int64_t row) { return Base(layer, 1) + row * kv_cols_; }
  void Advance(int64_t count) { tokens_ += count; }

  // Copies the other's rows; it has the same layers and kv_cols, and no more tokens than this one has room
  // for.
  void ForkFrom(const KvCache& other, int64_t num_layers) {
    for (int64_t layer = 0; layer < num_layers; ++layer) {
      const auto keys = other.Keys(layer);
      const auto values = other.Values(layer);
      std::copy(keys.data, keys.data + keys.rows * kv_cols_, Base(layer, 0));
      std::copy(values.data, values.data + values.rows * kv_cols_, Base(layer, 1));
    }
    tokens_ = other.tokens_;
  }

 private:
  bf16* Base(int64_t layer, int which) { return data_.data() + (layer * 2 + which) * capacity_ * kv_cols_; }
  const bf16* Base(int64_t layer, int which) const {
    return data_.data() + (layer * 2 + which) * capacity_ * kv_cols_;
  }

  int64_t capacity_;
  int64_t kv_cols_;
  int64_t tokens_ = 0;
  std::vector<bf16> data_;
};

}  // namespace lancet
