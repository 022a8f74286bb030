// The released model's sizes on a CUDA device, with random weights: a table of what pictures and answers cost
// beside their floors.
#pragma once

#include "absl/status/status.h"

namespace lancet {

struct CudaModelBenchOptions {
  bool fp8 = false;      // w4a8 instead of w4a16
  bool compare = false;  // also without each of the things that make it fast
  int repetitions = 3;
};

// Prints the table. Unimplemented in builds without CUDA.
absl::Status BenchCudaModel(const CudaModelBenchOptions& options);

}  // namespace lancet
