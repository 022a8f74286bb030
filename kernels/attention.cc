#include "kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "kernels/cpu/attention_kernel.h"
#include "kernels/shape_check.h"

namespace lancet {
namespace {

constexpr int64_t kMaxHeadDim = 256;  // what the kernels' scratch is laid out for
constexpr int64_t kPanel = 16;

AttentionKernel KernelFor(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kAvx512Bf16:
      return AttentionKernelAvx512Bf16();
    case CpuIsa::kAvx512:
      return AttentionKernelAvx512();
    case CpuIsa::kAvx2:
      return AttentionKernelAvx2();
    case CpuIsa::kPortable:
      break;
  }
  return AttentionKernelPortable();
}

absl::Status Check(const AttentionArgs& args, const MatrixView<bf16>& out) {
  if (args.head_dim < 2 || args.head_dim > kMaxHeadDim || args.head_dim % 2 != 0) {
    return absl::InvalidArgumentError(absl::StrCat("Attention: head_dim is ", args.head_dim,
                                                   "; expected an even number from 2 to ", kMaxHeadDim));
  }
  const int64_t pass_rows = args.q.rows;
  const int64_t heads = static_cast<int64_t>(args.kv_head_of.size());
  const int64_t kv_heads = args.k.cols / args.head_dim;
  LANCET_RETURN_IF_ERROR(CheckMatrix("Attention", "q", args.q, pass_rows, heads * args.head_dim));
  LANCET_RETURN_IF_ERROR(CheckMatrix("Attention", "out", out, pass_rows, heads * args.head_dim));
  LANCET_RETURN_IF_ERROR(CheckMatrix("Attention", "k", args.k, pass_rows, kv_heads * args.head_dim));
  LANCET_RETURN_IF_ERROR(CheckMatrix("Attention", "v", args.v, pass_rows, kv_heads * args.head_dim));
  for (const PastTokens& past : args.past) {
    LANCET_RETURN_IF_ERROR(CheckMatrix("Attention", "past k", past.k, past.k.rows, kv_heads * args.head_dim));
    LANCET_RETURN_IF_ERROR(CheckMatrix("Attention", "past v", past.v, past.k.rows, kv_heads * args.head_dim));
  }
  for (size_t i = 0; i < args.kv_head_of.size(); ++i) {
    if (args.kv_head_of[i] < 0 || args.kv_head_of[i] >= kv_heads) {
      return absl::InvalidArgumentError(absl::StrCat("Attention: kv_head_of[", i, "] is ", args.kv_head_of[i],
                                                     "; there are ", kv_heads, " key/value heads"));
    }
  }
  for (size_t i = 0; i < args.rows.size(); ++i) {
    if (args.rows[i] < 0 || args.rows[i] >= pass_rows) {
      return absl::InvalidArgumentError(
          absl::StrCat("Attention: rows[", i, "] is ", args.rows[i], "; the pass has ", pass_rows, " rows"));
    }
  }
  return absl::OkStatus();
}

const uint16_t* Bits(const bf16* p) { return reinterpret_cast<const uint16_t*>(p); }

// Where the packed keys and values of each key/value head lie in the shared scratch.
struct PackedLayout {
  int64_t panels = 0;      // of 16 keys
  int64_t k_panel = 0;     // units of a key panel
  int64_t v_stride = 0;    // units of a panel of dimensions
  int64_t v_keys = 0;      // units that 16 keys take in each panel of dimensions
  int64_t k_units = 0;     // of all keys of a head
  int64_t head_units = 0;  // of keys and values of a head
};

PackedLayout MakeLayout(const AttentionKernel& kernel, int64_t head_dim, int64_t keys) {
  PackedLayout layout;
  layout.panels = (keys + kPanel - 1) / kPanel;
  layout.k_panel = head_dim / kernel.unit_cols * kPanel;
  layout.v_keys = kPanel / kernel.unit_cols * kPanel;
  layout.v_stride = layout.panels * layout.v_keys;
  layout.k_units = layout.panels * layout.k_panel;
  layout.head_units = layout.k_units + (head_dim + kPanel - 1) / kPanel * layout.v_stride;
  return layout;
}

int64_t NumPast(const AttentionArgs& args) {
  int64_t tokens = 0;
  for (const PastTokens& past : args.past) tokens += past.k.rows;
  return tokens;
}

// Where a past key lies. There are one or two spans.
struct PastRow {
  const PastTokens& span;
  int64_t row;
};
PastRow Locate(const AttentionArgs& args, int64_t key) {
  size_t i = 0;
  for (; key >= args.past[i].k.rows; ++i) key -= args.past[i].k.rows;
  return {args.past[i], key};
}

void PackHeads(const KernelContext& ctx, const AttentionKernel& kernel, const AttentionArgs& args,
               const PackedLayout& layout, uint32_t* packed) {
  const int64_t past = NumPast(args);
  const int64_t keys = past + static_cast<int64_t>(args.rows.size());
  const int64_t kv_heads = args.k.cols / args.head_dim;
  const std::vector<uint16_t> zeros(static_cast<size_t>(args.head_dim));
  ctx.pool().ParallelFor(kv_heads * layout.panels, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t head = item / layout.panels;
      const int64_t panel = item % layout.panels;
      const uint16_t* k_rows[kPanel];
      const uint16_t* v_rows[kPanel];
      for (int64_t i = 0; i < kPanel; ++i) {
        const int64_t key = panel * kPanel + i;
        k_rows[i] = v_rows[i] = zeros.data();
        if (key < past) {
          const auto [span, row] = Locate(args, key);
          k_rows[i] = Bits(span.k.row(row) + head * args.head_dim);
          v_rows[i] = Bits(span.v.row(row) + head * args.head_dim);
        } else if (key < keys) {
          k_rows[i] = Bits(args.k.row(args.rows[key - past]) + head * args.head_dim);
          v_rows[i] = Bits(args.v.row(args.rows[key - past]) + head * args.head_dim);
        }
      }
      uint32_t* base = packed + head * layout.head_units;
      kernel.pack(k_rows, v_rows, args.head_dim, base + panel * layout.k_panel,
                  base + layout.k_units + panel * layout.v_keys, layout.v_stride);
    }
  });
}

}  // namespace

absl::Status Attention(const KernelContext& ctx, const AttentionArgs& args, MatrixView<bf16> out) {
  LANCET_RETURN_IF_ERROR(Check(args, out));
  if (args.rows.empty() || args.kv_head_of.empty()) return absl::OkStatus();
  const AttentionKernel kernel = KernelFor(ctx.isa());
  const int64_t block_rows = static_cast<int64_t>(args.rows.size());
  const int64_t kv_heads = args.k.cols / args.head_dim;
  AttentionKernelArgs common;
  common.head_dim = args.head_dim;
  common.score_scale = 1.0f / std::sqrt(static_cast<float>(args.head_dim));
  common.q = Bits(args.q.data);
  common.q_stride = args.q.stride;
  common.out = reinterpret_cast<uint16_t*>(out.data);
  common.out_stride = out.stride;
  common.rows = args.rows.data();
  common.past = NumPast(args);
  common.keys = common.past + block_rows;
  common.causal = args.causal;

  const PackedLayout layout = MakeLayout(kernel, args.head_dim, common.keys);
  LANCET_ASSIGN_OR_RETURN(
      absl::Span<std::byte> shared,
      ctx.SharedScratch(static_cast<size_t>(kv_heads * layout.head_units) * sizeof(uint32_t)));
  uint32_t* packed = reinterpret_cast<uint32_t*>(shared.data());
  PackHeads(ctx, kernel, args, layout, packed);

  std::vector<std::vector<int32_t>> heads(static_cast<size_t>(kv_heads));
  for (size_t i = 0; i < args.kv_head_of.size(); ++i) {
    heads[args.kv_head_of[i]].push_back(static_cast<int32_t>(i));
  }
  // One item per key/value head and tile of stacked rows.
  std::vector<AttentionKernelArgs> items;
  for (int64_t head = 0; head < kv_heads; ++head) {
    AttentionKernelArgs item = common;
    item.heads = heads[head].data();
    item.group = static_cast<int64_t>(heads[head].size());
    item.k = packed + head * layout.head_units;
    item.v = item.k + layout.k_units;
    const int64_t stacked = block_rows * item.group;
    for (int64_t r = 0; r < stacked; r += kernel.max_rows) {
      item.stacked_begin = r;
      item.stacked_end = std::min<int64_t>(stacked, r + kernel.max_rows);
      items.push_back(item);
    }
  }
  ctx.pool().ParallelFor(static_cast<int64_t>(items.size()), 1, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t i = begin; i < end; ++i) {
      items[i].scratch = ctx.scratch(thread).data();
      kernel.run(items[i]);
    }
  });
  return absl::OkStatus();
}

}  // namespace lancet
