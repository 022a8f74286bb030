// Made-up requests that pass through every stage once, so that the first real one finds warm caches.
#pragma once

#include <cstdint>
#include <vector>

#include "common/model_config.h"
#include "common/request_plan.h"
#include "worker/engine/model_runner.h"

namespace lancet {

struct WarmUpRequest {
  RequestPlan plan;
  std::vector<Work> work;  // from start to end
};

// One that draws; and, if there is a vision tower, one that edits and one that answers.
std::vector<WarmUpRequest> WarmUpRequests(const ModelConfig& config, const ModelLimits& limits);

// All work of a plan, each piece whole, in order.
std::vector<Work> AllWork(const RequestPlan& plan);

}  // namespace lancet
