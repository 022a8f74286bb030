// What a rank keeps of one admitted request, and the check of a plan before it is admitted. The same on every
// device.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "common/model_config.h"
#include "common/plan_rows.h"
#include "common/request_plan.h"
#include "worker/engine/model_runner.h"

namespace lancet {

// InvalidArgument naming field, value and limit.
absl::Status CheckPlan(const RequestPlan& plan, const ModelConfig& config, const ModelLimits& limits);

// How far a request is.
class RequestRun {
 public:
  explicit RequestRun(RequestPlan request)
      : plan_(std::move(request)),
        layout_(MakeCacheLayout(plan_)),
        steps_(plan_.snapshot.has_value() ? plan_.snapshot->step : 0) {}

  const RequestPlan& plan() const { return plan_; }
  const CacheLayout& layout() const { return layout_; }

  // InvalidArgument unless `work` is the next one of its kind and what it needs is done.
  absl::Status CheckNext(const Work& work) const;
  // Takes note of work that was done.
  void Advance(const Work& work, const WorkResult& result);
  // The answer has its last token.
  bool answered() const { return answered_; }

  // On the device; set at admission.
  std::unique_ptr<ModelRequest> memory;

 private:
  absl::Status CheckPrefill(const Work& work) const;
  bool prefilled() const { return block_ == static_cast<int32_t>(plan_.prefix.size()); }

  const RequestPlan plan_;
  const CacheLayout layout_;
  bool vision_done_ = false;
  bool latents_done_ = false;
  int32_t block_ = 0;  // the prefix block that is next
  int32_t row_ = 0;    // rows of it that are done
  int32_t steps_;      // done, here or before the snapshot
  int32_t tokens_ = 0;
  bool answered_ = false;
  bool decoded_ = false;
};

}  // namespace lancet
