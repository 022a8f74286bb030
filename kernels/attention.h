// Softmax attention with grouped key/value heads, over a cache and the rows of the current block.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/bf16.h"
#include "common/tensor_view.h"
#include "kernels/kernel_context.h"

namespace lancet {

// Keys and values of consecutive earlier tokens.
struct PastTokens {
  ConstMatrixView<bf16> k;  // [tokens, kv heads * head_dim]
  ConstMatrixView<bf16> v;
};

// The rows of one sequence: they see each other and what came before.
struct AttentionBlock {
  absl::Span<const int32_t> rows;     // rows of q, k, v and out that form the block, in sequence order
  absl::Span<const PastTokens> past;  // earlier blocks, oldest first; all of it is visible
  bool causal = false;                // row i of the block sees rows 0..i of it; otherwise all of them
};

// One attention call: every block of a pass, whoever it belongs to. Query head j uses key/value head
// kv_head_of[j].
struct AttentionArgs {
  int64_t head_dim = 0;
  absl::Span<const int32_t> kv_head_of;  // [query heads of this rank] -> key/value head of this rank

  ConstMatrixView<bf16> q;                  // [pass rows, heads * head_dim]
  ConstMatrixView<bf16> k;                  // [pass rows, kv heads * head_dim], after norm and rotation
  ConstMatrixView<bf16> v;                  // [pass rows, kv heads * head_dim]
  absl::Span<const AttentionBlock> blocks;  // no row in two of them
};

// For each row of each block: out[row] = softmax(q k^T / sqrt(head_dim)) v. Scores and softmax in f32,
// probabilities rounded to bf16 for the second product at most, output rounded to bf16. out: [pass rows,
// heads * head_dim]. A row's result depends on its own query and the visible keys alone, to the bit.
// InvalidArgument for shapes that disagree or rows out of range.
absl::Status Attention(const KernelContext& ctx, const AttentionArgs& args, MatrixView<bf16> out);

}  // namespace lancet
