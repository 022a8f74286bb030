#include "tools/calibration/rank_inputs.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "worker/loader/shard_plan.h"

namespace lancet {

class RankInputs::RankTrace final : public EngineTrace {
 public:
  RankTrace(RankInputs* inputs, int rank) : inputs_(inputs), rank_(rank) {}
  void OnLinearInput(int64_t layer, bool gen, FusedLinear linear, ConstMatrixView<bf16> x) override {
    inputs_->Add(rank_, {layer, gen, linear}, x);
  }

 private:
  RankInputs* const inputs_;
  const int rank_;
};

absl::StatusOr<std::unique_ptr<RankInputs>> RankInputs::Create(const ModelConfig& config, int world_size,
                                                               int threads, CalibrationSums* calibration) {
  auto inputs = std::unique_ptr<RankInputs>(new RankInputs(threads, calibration));
  inputs->attention_width_ = config.num_heads * config.head_dim;
  inputs->inner_width_ = config.intermediate_size;
  for (int rank = 0; rank < world_size; ++rank) {
    LANCET_ASSIGN_OR_RETURN(const ShardPlan plan, MakeShardPlan(config, rank, world_size));
    inputs->attention_cols_.push_back(
        {plan.query_heads.begin * plan.head_dim, plan.query_heads.end * plan.head_dim});
    inputs->inner_cols_.push_back(plan.inner);
    inputs->traces_.push_back(std::make_unique<RankTrace>(inputs.get(), rank));
  }
  return inputs;
}

std::vector<EngineTrace*> RankInputs::traces() const {
  std::vector<EngineTrace*> all;
  for (const auto& trace : traces_) all.push_back(trace.get());
  return all;
}

absl::Status RankInputs::status() {
  const std::lock_guard<std::mutex> lock(mu_);
  if (!status_.ok()) return status_;
  for (const auto& [key, joined] : joined_) {
    if (joined.rows > 0) return absl::InternalError("a rank's part of some rows did not come");
  }
  return absl::OkStatus();
}

void RankInputs::Add(int rank, const Key& key, ConstMatrixView<bf16> x) {
  const auto& [layer, gen, linear] = key;
  const bool split = linear == FusedLinear::kO || linear == FusedLinear::kDown;
  if (!split && rank > 0) return;
  const std::lock_guard<std::mutex> lock(mu_);
  if (!status_.ok()) return;
  status_ =
      split && traces_.size() > 1 ? Join(rank, key, x) : calibration_->Of(layer, gen, linear).Add(x, pool_);
  if (!status_.ok()) {
    status_ =
        absl::Status(status_.code(), absl::StrCat("what enters layer ", layer, ": ", status_.message()));
  }
}

absl::Status RankInputs::Join(int rank, const Key& key, ConstMatrixView<bf16> x) {
  const auto& [layer, gen, linear] = key;
  const int64_t width = linear == FusedLinear::kO ? attention_width_ : inner_width_;
  const Range cols = linear == FusedLinear::kO ? attention_cols_[rank] : inner_cols_[rank];
  Joined& joined = joined_[key];
  if (joined.rows == 0) {
    joined.rows = x.rows;
    joined.x.resize(x.rows * width);
    joined.arrived.assign(traces_.size(), false);
  }
  if (x.rows != joined.rows || x.cols != cols.size() || joined.arrived[rank]) {
    return absl::InternalError(absl::StrCat("rank ", rank, " brings [", x.rows, ", ", x.cols,
                                            "] to rows of [", joined.rows, ", ", width, "]"));
  }
  for (int64_t r = 0; r < x.rows; ++r)
    std::copy_n(x.row(r), x.cols, joined.x.data() + r * width + cols.begin);
  joined.arrived[rank] = true;
  if (!std::all_of(joined.arrived.begin(), joined.arrived.end(), [](bool there) { return there; })) {
    return absl::OkStatus();
  }
  const ConstMatrixView<bf16> whole(joined.x.data(), joined.rows, width);
  joined.rows = 0;
  return calibration_->Of(layer, gen, linear).Add(whole, pool_);
}

}  // namespace lancet
