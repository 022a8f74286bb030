#include "absl/status/status.h"
#include "tools/golden/cuda_stages.h"

namespace lancet {

absl::StatusOr<std::unique_ptr<CudaStages>> CudaStages::Create(const Checkpoint& /*checkpoint*/,
                                                               const EngineOptions& /*options*/) {
  return absl::UnimplementedError("this build has no CUDA backend");
}

}  // namespace lancet
