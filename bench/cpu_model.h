// The release's sizes with random weights on the CPU: what engine_bench measures without a checkpoint.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "bench/limits.h"

namespace lancet {

struct CpuModelBenchOptions {
  int threads = 1;
  int repetitions = 3;
  BenchClock clock = BenchClock::kWall;
  // Layers of the trunk that are made and measured; times are scaled to the release's 36.
  int layers = 1;
  std::vector<std::string> sides;  // of square pictures, in pixels
  // Of "step", "prefill", "decode", "vae" and "vit".
  std::vector<std::string> parts;
};

// Prints a line for each measurement: its time, its arithmetic and bytes, and what share they are of the
// limits measured in the same run. InvalidArgument for parts and sides that do not exist.
absl::Status BenchCpuModel(const CpuModelBenchOptions& options);

}  // namespace lancet
