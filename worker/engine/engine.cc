#include "worker/engine/engine.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "worker/engine/cpu_runner.h"
#include "worker/engine/cuda_runner.h"
#include "worker/engine/engine_impl.h"

namespace lancet {

absl::StatusOr<std::unique_ptr<Engine>> Engine::Load(const Checkpoint& checkpoint,
                                                     const EngineOptions& options) {
  if (options.max_latents < 1 || options.max_requests < 1 || options.max_patches < 1 ||
      options.cache_bytes < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "max_latents ", options.max_latents, ", max_requests ", options.max_requests, ", max_patches ",
        options.max_patches, " and cache_bytes ", options.cache_bytes, " must be at least 1"));
  }
  if (options.device != DeviceKind::kCpu) {
    absl::StatusOr<std::unique_ptr<ModelRunner>> runner = CreateCudaRunner(checkpoint, options);
    if (runner.ok()) {
      return std::make_unique<EngineImpl>(options, checkpoint.config(), *std::move(runner));
    }
    if (options.device == DeviceKind::kCuda) return runner.status();
    LogInfo("using the CPU", {{"reason", std::string(runner.status().message())}});
  }
  LANCET_ASSIGN_OR_RETURN(std::unique_ptr<CpuRunner> runner, CpuRunner::Load(checkpoint, options));
  return std::make_unique<EngineImpl>(options, checkpoint.config(), std::move(runner));
}

}  // namespace lancet
