// lancet.v1.ImageService: callback reactors that copy, hand over and return. Parsing, admission and planning
// run on a small pool, everything after that on the dispatcher's loop.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "common/clock.h"
#include "common/request_plan.h"
#include "coordinator/dispatch/dispatcher.h"
#include "coordinator/dispatch/task_runner.h"
#include "coordinator/request/admission.h"
#include "coordinator/service/api_convert.h"
#include "coordinator/service/readiness.h"

namespace grpc {
class Service;
}

namespace lancet {

// Makes the plan of an admitted request; InvalidArgument names what is wrong with the prompt. Thread-safe.
using Planner = std::function<absl::StatusOr<RequestPlan>(uint64_t request_id, const GenerateParams& params)>;

// Pointers outlive the service.
struct ImageServiceOptions {
  ModelInfo info;
  Planner planner;
  Dispatcher* dispatcher = nullptr;
  TaskRunner* admission_pool = nullptr;
  const Readiness* readiness = nullptr;
  const Clock* clock = nullptr;
  // For request ids and for the seed of a request that names none. Thread-safe.
  std::function<uint64_t()> random;
};

std::unique_ptr<grpc::Service> MakeImageService(ImageServiceOptions options);

}  // namespace lancet
