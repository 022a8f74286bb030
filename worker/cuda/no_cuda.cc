// Stands in for the CUDA backend in builds without it.

#include "absl/status/status.h"
#include "worker/engine/cuda_runner.h"

namespace lancet {

absl::StatusOr<std::unique_ptr<ModelRunner>> CreateCudaRunner(const Checkpoint& /*checkpoint*/,
                                                              const EngineOptions& /*options*/) {
  return absl::UnimplementedError("this build has no CUDA backend (CMake option LANCET_CUDA)");
}

bool HasCudaDevice() { return false; }

}  // namespace lancet
