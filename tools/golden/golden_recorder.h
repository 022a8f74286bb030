// What a rank's engine shows of a run, kept for comparison.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "common/bf16.h"
#include "common/tensor_view.h"
#include "worker/engine/engine_trace.h"

namespace lancet {

inline std::vector<double> Widen(ConstMatrixView<bf16> m) {
  std::vector<double> values;
  values.reserve(m.rows * m.cols);
  for (int64_t r = 0; r < m.rows; ++r) {
    for (int64_t c = 0; c < m.cols; ++c) values.push_back(ToFloat(m.row(r)[c]));
  }
  return values;
}

// Records one rank's view of a run.
class Recorder final : public EngineTrace {
 public:
  // `noise`: of the target; empty for a request that draws nothing.
  explicit Recorder(std::vector<bf16> noise) : noise_(std::move(noise)) {}

  std::optional<std::vector<bf16>> StartNoise(uint64_t /*request_id*/) override { return noise_; }
  void OnFeatures(uint64_t /*request_id*/, ConstMatrixView<bf16> now) override { features = Widen(now); }
  void OnConditionLatents(uint64_t /*request_id*/, ConstMatrixView<bf16> now) override {
    condition = Widen(now);
  }
  void OnLogits(uint64_t /*request_id*/, int32_t /*index*/, int64_t first_id,
                absl::Span<const bf16> now) override {
    std::vector<double>& row = logits.emplace_back();
    for (const bf16 x : now) row.push_back(ToFloat(x));
    first_logit = first_id;
  }
  void OnCache(uint64_t /*request_id*/, bool conditional, ConstMatrixView<bf16> keys,
               ConstMatrixView<bf16> values) override {
    (conditional ? cond_keys : uncond_keys) = Widen(keys);
    (conditional ? cond_values : uncond_values) = Widen(values);
  }
  void OnVelocity(uint64_t /*request_id*/, int32_t step, bool conditional,
                  ConstMatrixView<bf16> velocity) override {
    if (step == 0) (conditional ? v_cond : v_uncond) = Widen(velocity);
  }
  void OnLatents(uint64_t /*request_id*/, int32_t /*steps_done*/, ConstMatrixView<bf16> now) override {
    final_latents.assign(now.data, now.data + now.rows * now.cols);
    const std::vector<double> values = Widen(now);
    latents.insert(latents.end(), values.begin(), values.end());
  }

  std::vector<double> cond_keys, cond_values, uncond_keys, uncond_values;
  std::vector<double> features;   // of the vision tower
  std::vector<double> condition;  // latents of the condition
  std::vector<double> v_cond, v_uncond;
  std::vector<double> latents;              // of all steps
  std::vector<bf16> final_latents;          // of the last one
  std::vector<std::vector<double>> logits;  // this rank's part, per token
  int64_t first_logit = 0;

 private:
  const std::vector<bf16> noise_;
};

}  // namespace lancet
