// The collective of a group of one rank: every result is the rank's own contribution.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "worker/collective/collective.h"

namespace lancet {

// Never waits, so deadlines do not matter. One thread makes the calls; Abort may come from any thread.
class SingleRankCollective final : public Collective {
 public:
  // `capacity_floats` is the largest AllReduceSum.
  static absl::StatusOr<std::unique_ptr<SingleRankCollective>> Create(size_t capacity_floats);

  int rank() const override { return 0; }
  int world_size() const override { return 1; }

  absl::StatusOr<absl::Span<float>> PartialSumBuffer(size_t count) override;
  absl::StatusOr<absl::Span<const float>> AllReduceSum(absl::Span<const float> partial,
                                                       absl::Time deadline) override;
  absl::Status AllGather(absl::Span<const std::byte> mine, absl::Span<std::byte> all,
                         absl::Time deadline) override;
  absl::Status Broadcast(absl::Span<std::byte> data, int root, absl::Time deadline) override;
  absl::Status Barrier(absl::Time deadline) override;
  absl::Status Check() override { return Failure(); }
  void Abort(absl::Status reason) override;

 private:
  explicit SingleRankCollective(size_t capacity_floats);

  absl::Status Failure();
  absl::Status Fail(const absl::Status& reason);

  const size_t capacity_floats_;
  // Two, taken in turn: one holds the last result while the caller fills the other with its next partial sum.
  std::array<std::vector<float>, 2> buffers_;
  int next_ = 0;

  // Not absl::Mutex: the distributions' build of it is opaque to the thread sanitizer.
  std::mutex mu_;
  absl::StatusCode failure_code_ = absl::StatusCode::kOk;  // guarded by mu_
  std::string failure_message_;                            // guarded by mu_
};

}  // namespace lancet
