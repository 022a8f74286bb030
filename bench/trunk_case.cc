#include "bench/trunk_case.h"

#include <algorithm>
#include <random>
#include <utility>

#include "bench/random_model.h"
#include "common/status_macros.h"
#include "worker/loader/shard_plan.h"
#include "worker/model/trunk_weights.h"

namespace lancet {
namespace {

constexpr absl::Duration kTimeout = absl::Minutes(10);

}  // namespace

absl::StatusOr<std::unique_ptr<TrunkCase>> TrunkCase::Create(const KernelContext& ctx, int64_t layers,
                                                             int64_t max_rows, int rank, int world_size,
                                                             const LinearPolicy& policy) {
  std::unique_ptr<TrunkCase> made(new TrunkCase());
  made->config_ = ReleaseConfig();
  made->config_.num_layers = layers;
  made->config_.vocab_size = 64;  // embeddings are no part of a layer
  LANCET_ASSIGN_OR_RETURN(const ShardPlan plan, MakeShardPlan(made->config_, rank, world_size));
  TrunkWeights weights;
  {
    const std::unique_ptr<RandomModel> model = RandomModel::Trunk(made->config_);
    LANCET_ASSIGN_OR_RETURN(
        weights, TrunkWeights::Load(ctx, *model, made->config_, plan, /*with_head=*/false, policy));
  }
  made->transformer_ = std::make_unique<Transformer>(ctx, made->config_, plan, std::move(weights), max_rows);
  std::mt19937 random(2);
  std::uniform_real_distribution<float> value(-1.7f, 1.7f);
  made->rows_.resize(static_cast<size_t>(made->config_.hidden_size) * 1024);
  for (bf16& x : made->rows_) x = ToBf16(value(random));
  return made;
}

std::unique_ptr<KvCache> TrunkCase::MakeCache(int64_t capacity, int64_t tokens) const {
  const int64_t cols = transformer_->plan().kv_cols();
  auto cache = std::make_unique<KvCache>(config_.num_layers, capacity, cols);
  for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
    for (int64_t row = 0; row < tokens; ++row) {
      std::fill_n(cache->KeyRow(layer, row), cols, bf16{});
      std::fill_n(cache->ValueRow(layer, row), cols, bf16{});
    }
  }
  cache->Advance(tokens);
  return cache;
}

absl::Status TrunkCase::Run(const Pass& pass, Collective& collective) {
  const MatrixView<bf16> stream = transformer_->stream();
  const int64_t count = static_cast<int64_t>(rows_.size()) / stream.cols;
  for (int64_t r = 0; r < pass.rows(); ++r) {
    std::copy_n(rows_.data() + r % count * stream.cols, stream.cols, stream.row(r));
  }
  return transformer_->Forward(pass, collective, kTimeout);
}

double TrunkCase::LayerMacs() {
  const ModelConfig c = ReleaseConfig();
  const double hidden = static_cast<double>(c.hidden_size);
  const double q = static_cast<double>(c.num_heads * c.head_dim);
  const double kv = static_cast<double>(c.num_kv_heads * c.head_dim);
  return hidden * (2 * q + 2 * kv + 3.0 * static_cast<double>(c.intermediate_size));
}

double TrunkCase::AttentionMacs(int64_t keys) {
  const ModelConfig c = ReleaseConfig();
  return 2.0 * static_cast<double>(keys * c.num_heads * c.head_dim);
}

double TrunkCase::ExpertBytes(bool e4m3_scales) {
  return LayerMacs() * (0.5 + (e4m3_scales ? 1.0 : 2.0) / kNvfp4Block);
}

Positions RunOfPositions(int64_t first, int64_t count) {
  std::vector<int32_t> ids(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) ids[i] = static_cast<int32_t>(first + i);
  return {ids, ids, ids};
}

}  // namespace lancet
