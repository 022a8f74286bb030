#include "bench/cuda_model.h"

namespace lancet {

absl::Status BenchCudaModel(const CudaModelBenchOptions& /*options*/) {
  return absl::UnimplementedError("this build has no CUDA backend (CMake option LANCET_CUDA)");
}

absl::Status BenchCudaRanks(const CudaModelBenchOptions& options) { return BenchCudaModel(options); }

}  // namespace lancet
