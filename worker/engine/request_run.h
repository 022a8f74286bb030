// What a rank keeps of one admitted request, and the check of a plan before it is admitted.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "common/bf16.h"
#include "common/model_config.h"
#include "common/request_plan.h"
#include "common/tensor_view.h"
#include "worker/model/kv_cache.h"

namespace lancet {

// InvalidArgument naming field, value and limit.
absl::Status CheckPlan(const RequestPlan& plan, const ModelConfig& config, int64_t max_latents);

// State of one request between iterations.
struct RequestRun {
  // Caches are sized for the plan. The unconditional one exists if any step is guided.
  RequestRun(RequestPlan request, int64_t num_layers, int64_t kv_cols, std::vector<bf16> noise);

  bool guided() const { return unconditional != nullptr; }
  MatrixView<bf16> latents_view() { return {latents.data(), plan.target.num_latents(), kLatentChannels}; }

  RequestPlan plan;
  std::vector<float> times;   // TimestepSchedule
  std::vector<bf16> latents;  // [num_latents, 48]
  std::unique_ptr<KvCache> conditional;
  std::unique_ptr<KvCache> unconditional;
  bool forked = false;      // false while both caches would hold the same; then only `conditional` is filled
  int32_t blocks_done = 0;  // prefix blocks
  int32_t steps_done = 0;
  bool decoded = false;
};

}  // namespace lancet
