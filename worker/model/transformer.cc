#include "worker/model/transformer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/status_macros.h"
#include "kernels/activation.h"
#include "kernels/attention.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"

namespace lancet {
namespace {

// Rows [begin, begin + count) of a pass that go through one expert.
struct ExpertRows {
  Expert expert;
  int64_t begin;
  int64_t count;
};

// The one or two experts' parts of the rows [begin, end) of a pass whose first `und_rows` rows are und.
std::vector<ExpertRows> SplitByExpert(int64_t und_rows, int64_t begin, int64_t end) {
  std::vector<ExpertRows> parts;
  if (begin < und_rows) parts.push_back({Expert::kUnd, begin, std::min(end, und_rows) - begin});
  if (end > und_rows) {
    const int64_t first = std::max(begin, und_rows);
    parts.push_back({Expert::kGen, first, end - first});
  }
  return parts;
}

std::vector<bf16> CopyRows(ConstMatrixView<bf16> m) {
  std::vector<bf16> copy;
  copy.reserve(m.rows * m.cols);
  for (int64_t r = 0; r < m.rows; ++r) copy.insert(copy.end(), m.row(r), m.row(r) + m.cols);
  return copy;
}

}  // namespace

Transformer::Transformer(const KernelContext& ctx, const ModelConfig& config, const ShardPlan& plan,
                         TrunkWeights weights, int64_t max_rows)
    : ctx_(ctx),
      config_(config),
      plan_(plan),
      rope_(config),
      weights_(std::move(weights)),
      max_rows_(max_rows) {
  const int64_t chunk = std::min(kRowChunk, max_rows);
  stream_.resize(max_rows * config_.hidden_size);
  normed_.resize(chunk * config_.hidden_size);
  qkv_.resize(max_rows * (plan_.q_cols() + 2 * plan_.kv_cols()));
  attn_.resize(max_rows * plan_.q_cols());
  gate_up_.resize(chunk * 2 * plan_.inner.size());
  inner_.resize(chunk * plan_.inner.size());
  cos_.resize(max_rows * rope_.num_frequencies());
  sin_.resize(max_rows * rope_.num_frequencies());
}

absl::Status Transformer::Prepare(const Pass& pass) {
  if (pass.rows() > max_rows_) {
    return absl::InvalidArgumentError(
        absl::StrCat("a pass of ", pass.rows(), " rows; this rank has scratch for ", max_rows_));
  }
  for (const PassBlock& block : pass.blocks()) {
    const int64_t wanted = block.cache->tokens() + static_cast<int64_t>(block.rows.size());
    if (block.append && wanted > block.cache->capacity()) {
      return absl::InvalidArgumentError(
          absl::StrCat("a cache of ", block.cache->capacity(), " tokens is too small for ", wanted));
    }
  }
  const Positions positions = pass.RowPositions();
  const int64_t n = rope_.num_frequencies();
  ctx_.pool().ParallelFor(pass.rows(), 16, [&](int64_t begin, int64_t end, int /*thread*/) {
    for (int64_t i = begin; i < end; ++i) {
      rope_.Row(positions.t[i], positions.h[i], positions.w[i], cos_.data() + i * n, sin_.data() + i * n);
    }
  });
  wide_ = pass.Wide();
  single_ = pass.Single();
  return absl::OkStatus();
}

absl::Status Transformer::Forward(const Pass& pass, Collective& collective, absl::Duration timeout) {
  LANCET_RETURN_IF_ERROR(Prepare(pass));
  for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
    LANCET_RETURN_IF_ERROR(Attend(layer, pass, collective, timeout, nullptr));
    LANCET_RETURN_IF_ERROR(Mlp(layer, pass, collective, timeout));
  }
  for (const PassBlock& block : pass.blocks()) {
    if (block.append) block.cache->Advance(static_cast<int64_t>(block.rows.size()));
  }
  return absl::OkStatus();
}

absl::Status Transformer::ForwardLayer(int64_t layer, const Pass& pass, Collective& collective,
                                       absl::Duration timeout, LayerTrace* trace) {
  LANCET_RETURN_IF_ERROR(Prepare(pass));
  LANCET_RETURN_IF_ERROR(Attend(layer, pass, collective, timeout, trace));
  if (trace != nullptr) trace->mid = CopyRows(stream().Rows(0, pass.rows()));
  return Mlp(layer, pass, collective, timeout);
}

absl::Status Transformer::Attend(int64_t layer, const Pass& pass, Collective& collective,
                                 absl::Duration timeout, LayerTrace* trace) {
  const LayerWeights& weights = weights_.layers[layer];
  const int64_t rows = pass.rows();
  const int64_t hidden = config_.hidden_size;
  const int64_t q_cols = plan_.q_cols();
  const int64_t kv_cols = plan_.kv_cols();
  const int64_t n = rope_.num_frequencies();
  const MatrixView<bf16> qkv(qkv_.data(), rows, q_cols + 2 * kv_cols);
  const MatrixView<bf16> q = qkv.Cols(0, q_cols);
  const MatrixView<bf16> k = qkv.Cols(q_cols, kv_cols);
  const MatrixView<bf16> v = qkv.Cols(q_cols + kv_cols, kv_cols);

  for (int64_t begin = 0; begin < rows; begin += kRowChunk) {
    const int64_t end = std::min(rows, begin + kRowChunk);
    for (const ExpertRows& part : SplitByExpert(pass.und_rows(), begin, end)) {
      const ExpertWeights& w = weights.expert[static_cast<int>(part.expert)];
      const MatrixView<bf16> normed(normed_.data(), part.count, hidden);
      LANCET_RETURN_IF_ERROR(
          RmsNorm(ctx_, stream().Rows(part.begin, part.count), w.input_norm, config_.rms_norm_eps, normed));
      ShowInput(layer, part.expert, FusedLinear::kQkv, normed);
      const absl::Span<const uint8_t> single = absl::MakeConstSpan(single_).subspan(part.begin, part.count);
      LANCET_RETURN_IF_ERROR(w.qkv.Run(ctx_, normed, single, w.qkv_bias, qkv.Rows(part.begin, part.count)));
      const ConstMatrixView<bf16> cos(cos_.data() + part.begin * n, part.count, n);
      const ConstMatrixView<bf16> sin(sin_.data() + part.begin * n, part.count, n);
      const absl::Span<const uint8_t> wide = absl::MakeConstSpan(wide_).subspan(part.begin, part.count);
      LANCET_RETURN_IF_ERROR(QkNormRope(ctx_, q.Rows(part.begin, part.count), plan_.query_heads.size(),
                                        w.q_norm, config_.rms_norm_eps, cos, sin, wide));
      LANCET_RETURN_IF_ERROR(QkNormRope(ctx_, k.Rows(part.begin, part.count), plan_.kv_heads.size(), w.k_norm,
                                        config_.rms_norm_eps, cos, sin, wide));
    }
  }

  const MatrixView<bf16> attn(attn_.data(), rows, q_cols);
  LANCET_RETURN_IF_ERROR(AttendBlocks(layer, pass, qkv, attn));
  if (trace != nullptr) {
    trace->q = CopyRows(q);
    trace->k = CopyRows(k);
    trace->v = CopyRows(v);
    trace->attn = CopyRows(attn);
  }

  for (int64_t begin = 0; begin < rows; begin += kRowChunk) {
    const int64_t count = std::min(rows - begin, kRowChunk);
    LANCET_ASSIGN_OR_RETURN(const absl::Span<float> partial, collective.PartialSumBuffer(count * hidden));
    const MatrixView<float> sums(partial.data(), count, hidden);
    for (const ExpertRows& part : SplitByExpert(pass.und_rows(), begin, begin + count)) {
      const ConstMatrixView<bf16> x = attn.Rows(part.begin, part.count);
      ShowInput(layer, part.expert, FusedLinear::kO, x);
      const absl::Span<const uint8_t> single = absl::MakeConstSpan(single_).subspan(part.begin, part.count);
      LANCET_RETURN_IF_ERROR(weights.expert[static_cast<int>(part.expert)].o.Run(
          ctx_, x, single, sums.Rows(part.begin - begin, part.count)));
    }
    LANCET_ASSIGN_OR_RETURN(const absl::Span<const float> total,
                            collective.AllReduceSum(partial, absl::Now() + timeout));
    LANCET_RETURN_IF_ERROR(
        AddResidual(ctx_, ConstMatrixView<float>(total.data(), count, hidden), stream().Rows(begin, count)));
  }
  return absl::OkStatus();
}

absl::Status Transformer::AttendBlocks(int64_t layer, const Pass& pass, MatrixView<bf16> qkv,
                                       MatrixView<bf16> attn) {
  const int64_t kv_cols = plan_.kv_cols();
  AttentionArgs args;
  args.head_dim = config_.head_dim;
  args.kv_head_of = plan_.kv_head_of;
  args.q = qkv.Cols(0, plan_.q_cols());
  args.k = qkv.Cols(plan_.q_cols(), kv_cols);
  args.v = qkv.Cols(plan_.q_cols() + kv_cols, kv_cols);
  std::vector<KvCache::Past> pasts;
  std::vector<AttentionBlock> blocks;
  pasts.reserve(pass.blocks().size());  // blocks point into it
  for (const PassBlock& block : pass.blocks()) {
    pasts.push_back(block.cache->PastOf(layer));
    blocks.push_back({block.rows, pasts.back().parts(), block.causal});
  }
  args.blocks = blocks;
  LANCET_RETURN_IF_ERROR(Attention(ctx_, args, attn));
  for (const PassBlock& block : pass.blocks()) {
    if (!block.append) continue;
    int64_t cache_row = block.cache->tokens();
    for (const int32_t row : block.rows) {
      std::copy_n(args.k.row(row), kv_cols, block.cache->KeyRow(layer, cache_row));
      std::copy_n(args.v.row(row), kv_cols, block.cache->ValueRow(layer, cache_row));
      ++cache_row;
    }
  }
  return absl::OkStatus();
}

absl::Status Transformer::Mlp(int64_t layer, const Pass& pass, Collective& collective,
                              absl::Duration timeout) {
  const LayerWeights& weights = weights_.layers[layer];
  const int64_t rows = pass.rows();
  const int64_t hidden = config_.hidden_size;
  const int64_t inner = plan_.inner.size();
  for (int64_t begin = 0; begin < rows; begin += kRowChunk) {
    const int64_t count = std::min(rows - begin, kRowChunk);
    LANCET_ASSIGN_OR_RETURN(const absl::Span<float> partial, collective.PartialSumBuffer(count * hidden));
    const MatrixView<float> sums(partial.data(), count, hidden);
    for (const ExpertRows& part : SplitByExpert(pass.und_rows(), begin, begin + count)) {
      const ExpertWeights& w = weights.expert[static_cast<int>(part.expert)];
      const MatrixView<bf16> normed(normed_.data(), part.count, hidden);
      const MatrixView<bf16> gate_up(gate_up_.data(), part.count, 2 * inner);
      const MatrixView<bf16> activated(inner_.data(), part.count, inner);
      LANCET_RETURN_IF_ERROR(
          RmsNorm(ctx_, stream().Rows(part.begin, part.count), w.post_norm, config_.rms_norm_eps, normed));
      ShowInput(layer, part.expert, FusedLinear::kGateUp, normed);
      const absl::Span<const uint8_t> single = absl::MakeConstSpan(single_).subspan(part.begin, part.count);
      LANCET_RETURN_IF_ERROR(w.gate_up.Run(ctx_, normed, single, {}, gate_up));
      LANCET_RETURN_IF_ERROR(SiluMul(ctx_, gate_up, activated));
      ShowInput(layer, part.expert, FusedLinear::kDown, activated);
      LANCET_RETURN_IF_ERROR(w.down.Run(ctx_, activated, single, sums.Rows(part.begin - begin, part.count)));
    }
    LANCET_ASSIGN_OR_RETURN(const absl::Span<const float> total,
                            collective.AllReduceSum(partial, absl::Now() + timeout));
    LANCET_RETURN_IF_ERROR(
        AddResidual(ctx_, ConstMatrixView<float>(total.data(), count, hidden), stream().Rows(begin, count)));
  }
  return absl::OkStatus();
}

}  // namespace lancet
