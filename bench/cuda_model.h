// The released model's sizes on a CUDA device, with random weights: a table of what pictures and answers cost
// beside their floors.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/collective/collective.h"
#include "worker/collective/device_transport.h"

namespace lancet {

struct CudaModelBenchOptions {
  bool fp8 = false;      // w4a8 instead of w4a16
  bool compare = false;  // also without each of the things that make it fast
  int repetitions = 3;
  // Of groups.
  int ranks = 1;
  DeviceTransport transport = DeviceTransport::kAuto;
  bool f32_partials = false;
  bool share = true;  // false: sums by one kernel each, nothing fetched or handed over ahead
};

// Medians in milliseconds, by what was measured.
using CudaModelTimes = std::vector<std::pair<std::string, double>>;
struct CudaRankTimes {
  std::string transport;
  CudaModelTimes with_sums, without_sums;  // with and without the sums over the ranks
};

// Prints the table. Unimplemented in builds without CUDA.
absl::Status BenchCudaModel(const CudaModelBenchOptions& options);

// One rank, and a group of options.ranks processes of this host, side by side. Forks: to be called before the
// process knows CUDA or has threads.
absl::Status BenchCudaRanks(const CudaModelBenchOptions& options);

// What BenchCudaRanks compares: the model on one device, and a rank of a group, which `host` connects.
absl::StatusOr<CudaModelTimes> MeasureCudaModel(const CudaModelBenchOptions& options);
absl::StatusOr<CudaRankTimes> MeasureCudaRank(const CudaModelBenchOptions& options, Collective* host);

}  // namespace lancet
