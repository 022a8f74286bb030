// Collective operations between the ranks of one tensor-parallel group. One object per rank and epoch.
//
// Every rank makes the same calls in the same order with the same sizes; one thread per rank makes them. Sums
// are formed in rank order 0, 1, ..., so the result is the same bytes on every rank and from run to run. Each
// call ends by its deadline (DeadlineExceeded), when a peer is gone (Unavailable, naming the rank) or after
// Abort (the given status); any failure breaks the group for good: all later calls return the same error, and
// the group is formed anew with a new object.
#pragma once

#include <cstddef>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

namespace lancet {

class Collective {
 public:
  virtual ~Collective() = default;

  virtual int rank() const = 0;
  virtual int world_size() const = 0;

  // Memory for this rank's next partial sum: passing it to AllReduceSum saves a copy. Valid until that call
  // returns. InvalidArgument beyond the capacity the collective was created with.
  virtual absl::StatusOr<absl::Span<float>> PartialSumBuffer(size_t count) = 0;

  // Element-wise sum over all ranks. `partial` may be the span that PartialSumBuffer gave, or any other
  // memory. The result is read-only and stays valid until the next call of any collective on this object.
  virtual absl::StatusOr<absl::Span<const float>> AllReduceSum(absl::Span<const float> partial,
                                                               absl::Time deadline) = 0;

  // all = mine of rank 0, mine of rank 1, ...; all.size() == world_size * mine.size().
  virtual absl::Status AllGather(absl::Span<const std::byte> mine, absl::Span<std::byte> all,
                                 absl::Time deadline) = 0;

  // Copies the root's bytes to everybody.
  virtual absl::Status Broadcast(absl::Span<std::byte> data, int root, absl::Time deadline) = 0;

  // Returns when every rank has called it.
  virtual absl::Status Barrier(absl::Time deadline) = 0;

  // Whether the group is still whole, without waiting: for a rank that waits for something else on which its
  // peers work. A peer that is gone breaks the group, as in a call.
  virtual absl::Status Check() = 0;

  // Thread-safe. Ends pending and later calls of this rank with `reason`, and wakes the peers, whose calls
  // end too.
  virtual void Abort(absl::Status reason) = 0;
};

}  // namespace lancet
