// Collectives over one shared memory segment: between processes of one host, or between threads of one
// process.
//
// Each rank writes its partial sum straight into the segment, every rank adds up its slice of the vector over
// all partials in rank order, and all read the one result: no byte is copied. A wait spins for some
// microseconds, then sleeps on a futex in short ticks that look at the peers, the deadline and the state of
// the group. shm_layout.h describes the segment and why one area of each kind is enough.
//
// Besides what collective.h promises: a call with bad arguments breaks the group as well (InvalidArgument),
// because the peers may already wait in theirs; ranks that make different calls at the same time all get
// Internal, naming the two calls.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "worker/collective/collective.h"
#include "worker/collective/peer_watch.h"
#include "worker/collective/shm_layout.h"
#include "worker/collective/shm_segment.h"

namespace lancet {

struct ShmOptions {
  // Name of the segment, the same for all ranks of an epoch and never used again: 1 to 200 characters of
  // [A-Za-z0-9._-], without a slash.
  std::string segment_name;
  int rank = 0;
  int world_size = 1;  // 1 to kShmMaxRanks
  // Largest AllReduceSum in floats, equal on all ranks. The segment takes (world_size + 1) * capacity_floats
  // * 4 bytes and a little of /dev/shm.
  size_t capacity_floats = 0;
  // By then all ranks must have come.
  absl::Time create_deadline = absl::InfinitePast();
  // Looked at while waiting for the others to come, from the thread that calls Create: true gives up
  // (Cancelled). May be empty.
  std::function<bool()> cancelled = nullptr;
  // A wait spins this long before it sleeps; much less where the host has fewer cores than the group has
  // ranks. More than 50 us would starve the other threads of a rank that has one core.
  absl::Duration max_spin = absl::Microseconds(50);
};

// One thread makes the collective calls; Abort may come from any thread.
class ShmCollective final : public Collective {
 public:
  // Rank 0 creates the segment, the others open it; returns when all ranks have come. From then on the
  // segment has no name any more, so nothing is left behind however the processes end. InvalidArgument for
  // bad options; DeadlineExceeded naming a rank that did not come; FailedPrecondition if the segment is of
  // another group shape or version; AlreadyExists if the name is taken; ResourceExhausted if /dev/shm is too
  // small; Unavailable if a peer died; Cancelled.
  static absl::StatusOr<std::unique_ptr<ShmCollective>> Create(const ShmOptions& options);

  // All ranks of a group as objects for threads of this process, element r being rank r.
  static absl::StatusOr<std::vector<std::unique_ptr<ShmCollective>>> CreateGroupInProcess(
      int world_size, size_t capacity_floats);

  // A peer that waits for this rank, or will, gets Unavailable.
  ~ShmCollective() override;

  int rank() const override { return rank_; }
  int world_size() const override { return world_size_; }

  absl::StatusOr<absl::Span<float>> PartialSumBuffer(size_t count) override;
  absl::StatusOr<absl::Span<const float>> AllReduceSum(absl::Span<const float> partial,
                                                       absl::Time deadline) override;
  absl::Status AllGather(absl::Span<const std::byte> mine, absl::Span<std::byte> all,
                         absl::Time deadline) override;
  absl::Status Broadcast(absl::Span<std::byte> data, int root, absl::Time deadline) override;
  absl::Status Barrier(absl::Time deadline) override;
  absl::Status Check() override;
  void Abort(absl::Status reason) override;

 private:
  ShmCollective(std::shared_ptr<ShmSegment> segment, int rank, absl::Duration max_spin);

  // Publishes the call that this rank is about to make, waits for all ranks and compares.
  absl::Status Enter(const ShmCall& call, absl::Time deadline);
  // Tells the peers that this rank has come one phase further and waits until all have.
  absl::Status Arrive(absl::Time deadline);
  absl::Status CompareCalls();
  // One phase of AllGather or Broadcast; the first of a call enters it.
  absl::Status Exchange(const ShmCall& call, bool first, absl::Time deadline);
  bool SpinUntilArrived(uint32_t phase) const;
  absl::Status SleepUntilArrived(uint32_t phase, absl::Time deadline);
  // The lowest rank from `from` on that has not reached `phase`; world_size if there is none.
  int FirstMissing(uint32_t phase, int from) const;
  // Breaks the group if a rank has gone before all have reached `phase`.
  absl::Status CheckPeers(uint32_t phase);
  // Breaks the group, naming the rank, if that one has gone while this rank was in `call`.
  absl::Status CheckPeer(int rank, const std::string& call);
  void WatchPeers();

  bool Broken() const;
  // Breaks the group with `reason` unless it is broken already; returns why it is broken.
  absl::Status Break(const absl::Status& reason);
  absl::Status BrokenStatus();

  // Constant after construction.
  // Shared by the ranks of CreateGroupInProcess: the last one unmaps it.
  const std::shared_ptr<ShmSegment> segment_;
  const int rank_;
  const int world_size_;
  const absl::Duration spin_;

  // Of the one thread that makes the calls.
  PeerWatch peers_;
  std::function<bool()> cancelled_;  // while forming only
  ShmCall call_;                     // the present or last call
  uint32_t phase_ = 0;               // phases this rank has reached
  uint32_t calls_ = 0;               // collective calls begun
  uint32_t exchanges_ = 0;           // chunks exchanged by AllGather and Broadcast

  // Guards what follows: why this rank's calls fail, once they do. Not absl::Mutex: the distributions' build
  // of it is opaque to the thread sanitizer.
  std::mutex mu_;
  absl::StatusCode failure_code_ = absl::StatusCode::kOk;
  std::string failure_message_;
};

}  // namespace lancet
