// The model of one rank on a CUDA device, in builds that have the backend.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "common/checkpoint.h"
#include "worker/engine/engine.h"
#include "worker/engine/model_runner.h"

namespace lancet {

// Loads the weights onto device options.device_ordinal. The checkpoint may go away afterwards. Unimplemented
// in builds without CUDA, and for what the backend lacks: groups whose ranks would own query
// heads of two key/value heads unevenly, head sizes other than 64 and 128. Unavailable without a device or
// driver.
absl::StatusOr<std::unique_ptr<ModelRunner>> CreateCudaRunner(const Checkpoint& checkpoint,
                                                              const EngineOptions& options);

// Whether a CUDA device is there and the build can use it.
bool HasCudaDevice();

}  // namespace lancet
