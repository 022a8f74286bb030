#include "kernels/attention.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <numeric>
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

absl::Status CheckBlock(const AttentionBlock& block, int64_t pass_rows, int64_t kv_cols) {
  for (const PastTokens& past : block.past) {
    LANCET_RETURN_IF_ERROR(CheckMatrix("Attention", "past k", past.k, past.k.rows, kv_cols));
    LANCET_RETURN_IF_ERROR(CheckMatrix("Attention", "past v", past.v, past.k.rows, kv_cols));
  }
  for (size_t i = 0; i < block.rows.size(); ++i) {
    if (block.rows[i] < 0 || block.rows[i] >= pass_rows) {
      return absl::InvalidArgumentError(
          absl::StrCat("Attention: rows[", i, "] is ", block.rows[i], "; the pass has ", pass_rows, " rows"));
    }
  }
  return absl::OkStatus();
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
  for (size_t i = 0; i < args.kv_head_of.size(); ++i) {
    if (args.kv_head_of[i] < 0 || args.kv_head_of[i] >= kv_heads) {
      return absl::InvalidArgumentError(absl::StrCat("Attention: kv_head_of[", i, "] is ", args.kv_head_of[i],
                                                     "; there are ", kv_heads, " key/value heads"));
    }
  }
  for (const AttentionBlock& block : args.blocks) {
    LANCET_RETURN_IF_ERROR(CheckBlock(block, pass_rows, kv_heads * args.head_dim));
  }
  return absl::OkStatus();
}

const uint16_t* Bits(const bf16* p) { return reinterpret_cast<const uint16_t*>(p); }

// Where the packed keys and values of each key/value head of a block lie in the shared scratch.
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

// All calls of the kernel that a pass takes, and what they point to.
class Plan {
 public:
  Plan(const KernelContext& ctx, const AttentionKernel& kernel, const AttentionArgs& args,
       MatrixView<bf16> out)
      : ctx_(ctx), kernel_(kernel), args_(args), kv_heads_(args.k.cols / args.head_dim) {
    common_.head_dim = args.head_dim;
    common_.score_scale = 1.0f / std::sqrt(static_cast<float>(args.head_dim));
    common_.q = Bits(args.q.data);
    common_.q_stride = args.q.stride;
    common_.out = reinterpret_cast<uint16_t*>(out.data);
    common_.out_stride = out.stride;
    heads_.resize(static_cast<size_t>(kv_heads_));
    for (size_t i = 0; i < args.kv_head_of.size(); ++i) {
      heads_[args.kv_head_of[i]].push_back(static_cast<int32_t>(i));
    }
    for (const AttentionBlock& block : args.blocks) {
      if (!block.rows.empty()) AddBlock(block);
    }
  }

  absl::Status Run() {
    LANCET_ASSIGN_OR_RETURN(const absl::Span<std::byte> shared,
                            ctx_.SharedScratch(static_cast<size_t>(packed_units_) * sizeof(uint32_t)));
    uint32_t* packed = reinterpret_cast<uint32_t*>(shared.data());
    PackShared(packed);
    // The longest first, each taken by the next thread that is free: rows of causal blocks and sequences of
    // different length make unequal items.
    std::vector<int32_t> order(items_.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return items_[a].cost > items_[b].cost; });
    std::atomic<size_t> next{0};
    ctx_.pool().ParallelFor(ctx_.pool().num_threads(), 1, [&](int64_t, int64_t, int thread) {
      for (size_t i = next.fetch_add(1); i < order.size(); i = next.fetch_add(1)) {
        RunItem(items_[order[i]], packed, thread);
      }
    });
    return absl::OkStatus();
  }

 private:
  // Rows of one key/value head of a block: a call of the kernel.
  struct Item {
    size_t block = 0;
    int64_t head = 0;
    int64_t stacked_begin = 0;
    int64_t stacked_end = 0;
    int64_t cost = 0;  // rows times keys
  };
  struct Block {
    const AttentionBlock* block = nullptr;
    std::vector<KeySpan> spans;  // of key/value head 0; the others lie head_dim elements on
    int64_t past = 0;
    int64_t keys = 0;
    PackedLayout layout;
    int64_t first_panel = -1;  // among all that are packed beforehand; -1: none are
    int64_t first_unit = 0;    // in the shared scratch
  };

  void AddBlock(const AttentionBlock& from) {
    Block block;
    block.block = &from;
    for (const PastTokens& past : from.past) {
      AddSpan({Bits(past.k.data), past.k.stride, Bits(past.v.data), past.v.stride, past.k.rows}, block);
    }
    block.past = block.keys;
    for (size_t i = 0, run = 1; i < from.rows.size(); i += run) {
      // Rows that follow each other in the pass are one span.
      for (run = 1; i + run < from.rows.size(); ++run) {
        if (from.rows[i + run] != from.rows[i] + static_cast<int32_t>(run)) break;
      }
      AddSpan({Bits(args_.k.row(from.rows[i])), args_.k.stride, Bits(args_.v.row(from.rows[i])),
               args_.v.stride, static_cast<int64_t>(run)},
              block);
    }
    block.layout = MakeLayout(kernel_, args_.head_dim, block.keys);
    bool shared = false;
    for (int64_t head = 0; head < kv_heads_; ++head) {
      const int64_t group = static_cast<int64_t>(heads_[head].size());
      const int64_t stacked = static_cast<int64_t>(from.rows.size()) * group;
      shared = shared || stacked > kernel_.max_rows;
      for (int64_t r = 0; r < stacked; r += kernel_.max_rows) {
        Item item{blocks_.size(), head, r, std::min<int64_t>(stacked, r + kernel_.max_rows)};
        const int64_t visible = from.causal ? block.past + (item.stacked_end - 1) / group + 1 : block.keys;
        item.cost = (item.stacked_end - r) * visible;
        items_.push_back(item);
      }
    }
    if (shared) {
      block.first_panel = packed_panels_;
      block.first_unit = packed_units_;
      packed_panels_ += kv_heads_ * block.layout.panels;
      packed_units_ += kv_heads_ * block.layout.head_units;
    }
    blocks_.push_back(std::move(block));
  }

  static void AddSpan(const KeySpan& span, Block& block) {
    if (span.count == 0) return;
    block.spans.push_back(span);
    block.keys += span.count;
  }

  KeySpan OfHead(KeySpan span, int64_t head) const {
    span.k += head * args_.head_dim;
    span.v += head * args_.head_dim;
    return span;
  }

  // Packs the keys of every block that more than one item reads.
  void PackShared(uint32_t* packed) {
    ctx_.pool().ParallelFor(packed_panels_, 1, [&](int64_t begin, int64_t end, int) {
      for (const Block& block : blocks_) {
        if (block.first_panel < 0) continue;
        const int64_t first = std::max(begin, block.first_panel);
        const int64_t last = std::min(end, block.first_panel + kv_heads_ * block.layout.panels);
        for (int64_t i = first; i < last; ++i) PackPanel(block, i - block.first_panel, packed);
      }
    });
  }

  void PackPanel(const Block& block, int64_t index, uint32_t* packed) const {
    const PackedLayout& layout = block.layout;
    const int64_t head = index / layout.panels;
    const int64_t panel = index % layout.panels;
    static const uint16_t zeros[kMaxHeadDim] = {};
    const uint16_t* k_rows[kPanel];
    const uint16_t* v_rows[kPanel];
    int64_t row = panel * kPanel;
    size_t s = 0;
    for (; s < block.spans.size() && row >= block.spans[s].count; ++s) row -= block.spans[s].count;
    for (int64_t i = 0; i < kPanel; ++i) {
      if (s < block.spans.size() && row == block.spans[s].count) ++s, row = 0;
      k_rows[i] = v_rows[i] = zeros;
      if (s == block.spans.size()) continue;
      const KeySpan span = OfHead(block.spans[s], head);
      k_rows[i] = span.k + row * span.k_stride;
      v_rows[i] = span.v + row * span.v_stride;
      ++row;
    }
    uint32_t* base = packed + block.first_unit + head * layout.head_units;
    kernel_.pack(k_rows, v_rows, args_.head_dim, base + panel * layout.k_panel,
                 base + layout.k_units + panel * layout.v_keys, layout.v_stride);
  }

  void RunItem(const Item& item, const uint32_t* packed, int thread) const {
    const Block& block = blocks_[item.block];
    AttentionKernelArgs args = common_;
    args.heads = heads_[item.head].data();
    args.group = static_cast<int64_t>(heads_[item.head].size());
    args.rows = block.block->rows.data();
    args.stacked_begin = item.stacked_begin;
    args.stacked_end = item.stacked_end;
    args.keys = block.keys;
    args.past = block.past;
    args.causal = block.block->causal;
    args.scratch = ctx_.scratch(thread).data();
    std::vector<KeySpan> spans;
    if (block.first_panel >= 0) {
      args.k = packed + block.first_unit + item.head * block.layout.head_units;
      args.v = args.k + block.layout.k_units;
      args.v_stride = block.layout.v_stride;
    } else {
      for (const KeySpan& span : block.spans) spans.push_back(OfHead(span, item.head));
      args.spans = spans.data();
    }
    kernel_.run(args);
  }

  const KernelContext& ctx_;
  const AttentionKernel kernel_;
  const AttentionArgs& args_;
  const int64_t kv_heads_;
  AttentionKernelArgs common_;
  std::vector<std::vector<int32_t>> heads_;  // query heads of each key/value head
  std::vector<Block> blocks_;
  std::vector<Item> items_;
  int64_t packed_panels_ = 0;
  int64_t packed_units_ = 0;
};

}  // namespace

absl::Status Attention(const KernelContext& ctx, const AttentionArgs& args, MatrixView<bf16> out) {
  LANCET_RETURN_IF_ERROR(Check(args, out));
  if (args.kv_head_of.empty()) return absl::OkStatus();
  return Plan(ctx, KernelFor(ctx.product_isa()), args, out).Run();
}

}  // namespace lancet
