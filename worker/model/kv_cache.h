// Keys and values of one sequence on one rank, for every layer.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "absl/types/span.h"
#include "common/bf16.h"
#include "common/tensor_view.h"
#include "kernels/attention.h"

namespace lancet {

// Layout: per layer, [capacity, kv heads * head_dim] bf16 for keys (after norm and rotation) and the same for
// values. Memory is taken once, at construction. A cache may go on from another one, its `parent`, whose
// tokens come first: so two sequences that begin alike store their beginning once.
class KvCache {
 public:
  // `parent` has the same layers and kv_cols, outlives this one, and no longer grows once this one holds
  // tokens.
  KvCache(int64_t num_layers, int64_t capacity_tokens, int64_t kv_cols, const KvCache* parent = nullptr)
      : capacity_(capacity_tokens),
        kv_cols_(kv_cols),
        parent_(parent),
        data_(std::make_unique_for_overwrite<bf16[]>(num_layers * 2 * capacity_tokens * kv_cols)) {}

  // Own tokens, without the parent's.
  int64_t tokens() const { return tokens_; }
  int64_t capacity() const { return capacity_; }

  // Everything that a new row sees, parent first; parts without tokens are left out. Valid while the object
  // stays.
  class Past {
   public:
    absl::Span<const PastTokens> parts() const { return {parts_.data(), count_}; }

   private:
    friend class KvCache;
    std::array<PastTokens, 2> parts_;
    size_t count_ = 0;
  };
  Past PastOf(int64_t layer) const {
    Past past;
    for (const KvCache* cache : {parent_, this}) {
      if (cache == nullptr || cache->tokens_ == 0) continue;
      past.parts_[past.count_++] = {cache->Keys(layer), cache->Values(layer)};
    }
    return past;
  }

  // Own rows of a layer: [tokens(), kv_cols].
  ConstMatrixView<bf16> Keys(int64_t layer) const { return {Base(layer, 0), tokens_, kv_cols_}; }
  ConstMatrixView<bf16> Values(int64_t layer) const { return {Base(layer, 1), tokens_, kv_cols_}; }

  // Memory of a row that is being appended: tokens() <= row < capacity(). Visible after Advance.
  bf16* KeyRow(int64_t layer, int64_t row) { return Base(layer, 0) + row * kv_cols_; }
  bf16* ValueRow(int64_t layer, int64_t row) { return Base(layer, 1) + row * kv_cols_; }
  void Advance(int64_t count) { tokens_ += count; }

 private:
  bf16* Base(int64_t layer, int which) const {
    return data_.get() + (layer * 2 + which) * capacity_ * kv_cols_;
  }

  int64_t capacity_;
  int64_t kv_cols_;
  const KvCache* parent_;
  int64_t tokens_ = 0;
  std::unique_ptr<bf16[]> data_;
};

}  // namespace lancet
