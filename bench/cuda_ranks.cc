// engine_bench --device cuda --ranks N: a group of processes beside one rank.
#include <sys/wait.h>
#include <unistd.h>

#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "bench/cuda_model.h"
#include "common/status_macros.h"
#include "worker/collective/shm_collective.h"

namespace lancet {
namespace {

// One rank measures alone while the others wait.
constexpr absl::Duration kTimeout = absl::Minutes(10);

void Print(const CudaModelBenchOptions& options, const CudaModelTimes& one, const CudaRankTimes& group) {
  std::cout << absl::StrFormat("%-20s %10s %10s %7s %12s   (%s, %s partial sums)\n", "milliseconds", "1 rank",
                               absl::StrCat(options.ranks, " ranks"), "ratio", "in sums", group.transport,
                               options.f32_partials ? "f32" : "bf16");
  for (size_t i = 0; i < one.size() && i < group.with_sums.size(); ++i) {
    const double with = group.with_sums[i].second;
    std::cout << absl::StrFormat("%-20s %10.3f %10.3f %7.2f %11.1f%%\n", one[i].first, one[i].second, with,
                                 one[i].second / with, 100 * (with - group.without_sums[i].second) / with);
  }
}

absl::Status RunRank(const CudaModelBenchOptions& options, int rank, const std::string& segment) {
  ShmOptions shm;
  shm.segment_name = segment;
  shm.rank = rank;
  shm.world_size = options.ranks;
  shm.capacity_floats = 16;
  shm.create_deadline = absl::Now() + kTimeout;
  LANCET_ASSIGN_OR_RETURN(const auto host, ShmCollective::Create(shm));
  CudaModelTimes one;
  if (rank == 0) {
    LANCET_ASSIGN_OR_RETURN(one, MeasureCudaModel(options));
  }
  LANCET_RETURN_IF_ERROR(host->Barrier(absl::Now() + kTimeout));
  LANCET_ASSIGN_OR_RETURN(const CudaRankTimes group, MeasureCudaRank(options, host.get()));
  if (rank == 0) Print(options, one, group);
  return host->Barrier(absl::Now() + kTimeout);
}

}  // namespace

absl::Status BenchCudaRanks(const CudaModelBenchOptions& options) {
  const std::string segment = absl::StrCat("lancet-bench-", getpid());
  std::vector<pid_t> children;
  for (int rank = 1; rank < options.ranks; ++rank) {
    const pid_t child = fork();
    if (child < 0) return absl::InternalError("fork failed");
    if (child == 0) {
      const absl::Status status = RunRank(options, rank, segment);
      if (!status.ok()) std::cerr << "rank " << rank << ": " << status << "\n";
      _exit(status.ok() ? 0 : 1);
    }
    children.push_back(child);
  }
  absl::Status status = RunRank(options, 0, segment);
  std::cout.flush();
  // They end by themselves: a group breaks as one.
  for (const pid_t child : children) {
    int code = 0;
    if (waitpid(child, &code, 0) != child || code != 0) {
      status.Update(absl::InternalError(absl::StrCat("the process of a rank ended with code ", code)));
    }
  }
  return status;
}

}  // namespace lancet
