// From what every rank of a group sees to the statistics of whole Linears.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <tuple>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/model_config.h"
#include "common/partition.h"
#include "common/thread_pool.h"
#include "tools/calibration/calibration_sums.h"
#include "worker/engine/engine_trace.h"

namespace lancet {

// Inputs of q, k and v and of gate and up are whole on every rank: the first one's count. Those of o and down
// are split by columns: each rank's part of the same rows is put in its place, and the rows count when all
// are there. Traces may be called by all ranks at the same time.
class RankInputs {
 public:
  // `calibration` outlives this. threads: of the sums of x x^T.
  static absl::StatusOr<std::unique_ptr<RankInputs>> Create(const ModelConfig& config, int world_size,
                                                            int threads, CalibrationSums* calibration);

  // One per rank, for RankGroup::Run.
  std::vector<EngineTrace*> traces() const;
  // The first error; also if a rank's part of some rows is missing, so ask between requests.
  absl::Status status();

 private:
  class RankTrace;
  using Key = std::tuple<int64_t, bool, FusedLinear>;
  // Rows of which some ranks' columns are there.
  struct Joined {
    int64_t rows = 0;
    std::vector<bf16> x;  // [rows, whole width]
    std::vector<bool> arrived;
  };

  RankInputs(int threads, CalibrationSums* calibration) : calibration_(calibration), pool_(threads) {}
  void Add(int rank, const Key& key, ConstMatrixView<bf16> x);
  // Under mu_.
  absl::Status Join(int rank, const Key& key, ConstMatrixView<bf16> x);

  int64_t attention_width_ = 0;
  int64_t inner_width_ = 0;
  std::vector<Range> attention_cols_, inner_cols_;  // by rank
  std::vector<std::unique_ptr<EngineTrace>> traces_;

  // Guards what follows. std::mutex and not absl::Mutex: TSan sees its waits (worker/session.h).
  std::mutex mu_;
  CalibrationSums* const calibration_;
  ThreadPool pool_;
  std::map<Key, Joined> joined_;
  absl::Status status_;
};

}  // namespace lancet
