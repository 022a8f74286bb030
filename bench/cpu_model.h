// The release's sizes with random weights on the CPU: what engine_bench measures without a checkpoint.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "bench/limits.h"
#include "worker/loader/linear_policy.h"

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
  // Of the trunk's Linears: kW4A16 or kW4A8Int8; and of the output head.
  LinearMode mode = LinearMode::kW4A16;
  HeadForm head = HeadForm::kBf16;
  bool e4m3_scales = false;  // kW4A8Int8
};

// Prints a line for each measurement: its time, its arithmetic and bytes, and what share they are of the
// limits measured in the same run. InvalidArgument for parts and sides that do not exist.
absl::Status BenchCpuModel(const CpuModelBenchOptions& options);

}  // namespace lancet
