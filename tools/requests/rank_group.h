// The ranks of a tensor-parallel group as threads of this process: real engines and layers over the real
// shared memory collectives.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/checkpoint.h"
#include "common/request_plan.h"
#include "worker/collective/collective.h"
#include "worker/engine/engine.h"
#include "worker/engine/engine_trace.h"

namespace lancet {

// Calls fn(rank, collective) on one thread per rank and waits for all. The first failure aborts the others
// and is returned.
absl::Status RunOnRanks(int world_size, size_t capacity_floats,
                        const std::function<absl::Status(int rank, Collective& collective)>& fn);

// Engines of all ranks, loaded once. Run executes one request from start to end.
class RankGroup {
 public:
  // `options` without rank and world size.
  static absl::StatusOr<std::unique_ptr<RankGroup>> Load(const Checkpoint& checkpoint, int world_size,
                                                         EngineOptions options);

  // Executes the whole plan on every rank. `traces[rank]` may be null. Returns rank 0's results.
  absl::StatusOr<std::vector<WorkResult>> Run(const RequestPlan& plan,
                                              const std::vector<EngineTrace*>& traces);

  // The same piece by piece, so that an answer ends with its last token.
  absl::StatusOr<std::vector<WorkResult>> RunInPieces(const RequestPlan& plan,
                                                      const std::vector<EngineTrace*>& traces);

  int world_size() const { return static_cast<int>(engines_.size()); }

 private:
  absl::StatusOr<std::vector<WorkResult>> Run(const RequestPlan& plan,
                                              const std::vector<EngineTrace*>& traces, bool in_pieces);

  std::vector<std::unique_ptr<Engine>> engines_;
};

}  // namespace lancet
