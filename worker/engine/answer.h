// Picking the next token of an answer from logits that are split by vocabulary over the ranks.
#pragma once

#include <cstdint>

#include "absl/types/span.h"
#include "common/bf16.h"
#include "common/request_plan.h"

namespace lancet {

// The best token among some: ranks compare theirs.
struct TokenChoice {
  float score = 0;
  int32_t id = -1;  // -1: none

  // Higher score; of equals the lower id, as the reference's arg-max.
  bool IsBetterThan(const TokenChoice& other) const {
    if (id < 0 || other.id < 0) return id >= 0;
    return score != other.score ? score > other.score : id < other.id;
  }
};

// The best of the ids [first_id, first_id + logits.size()) for token `index` of an answer. Temperature 0: the
// largest logit. Else a draw from softmax(logits / temperature): the largest of logit / temperature + g(id),
// where g is Gumbel noise that depends on (seed, index, id) alone. So a draw needs no sum over the
// vocabulary, and is the same however the vocabulary is split. NaN never wins.
TokenChoice ChooseToken(const AnswerParams& answer, uint64_t seed, int32_t index, int64_t first_id,
                        absl::Span<const bf16> logits);

}  // namespace lancet
