// Collectives between the ranks of several hosts without GPUs, over TCP: one socket per pair, one thread.
//
// A call begins with a header to every peer, which is compared, and goes on with its bytes straight from and
// into the caller's memory. All sockets move at the same time: the thread spins for some microseconds, then
// polls. AllReduceSum of two ranks, or of few floats, is one exchange of whole partial sums, added up on
// every rank; with more ranks each adds up its slice and hands it out. Either way sums are formed in rank
// order, so the result has the same bytes as over shared memory.
//
// Not Gloo: its synchronous mode, the only one that is fast on a host with one core per rank, can't be
// aborted before its timeout, while a rank here must come out of a call as soon as its epoch ends.
//
// Besides what collective.h promises: a call with bad arguments breaks the group as well (InvalidArgument);
// ranks that make different calls get Internal, naming the two. Peers of a rank that aborted, or met its
// deadline, get Unavailable.
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
#include "worker/collective/file_descriptor.h"
#include "worker/collective/tcp_mesh.h"

namespace lancet {

// One thread makes the collective calls; Abort may come from any thread.
class TcpCollective final : public Collective {
 public:
  // Returns when all ranks are connected. capacity_floats is the largest AllReduceSum. Errors as those of
  // ConnectTcpMesh.
  static absl::StatusOr<std::unique_ptr<TcpCollective>> Create(const TcpMeshOptions& options);

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
  enum class Op : uint32_t { kAllReduceSum, kAllGather, kBroadcast, kBarrier };

  // What every rank must agree on. Travels as it is.
  struct Call {
    Op op = Op::kBarrier;
    uint32_t root = 0;
    uint64_t size = 0;    // AllReduceSum: floats; AllGather, Broadcast: bytes
    uint64_t number = 0;  // calls made before

    friend bool operator==(const Call&, const Call&) = default;
  };
  static_assert(sizeof(Call) == 24);

  // What goes to and comes from one peer.
  struct Transfer {
    const std::byte* out = nullptr;
    size_t out_size = 0;
    std::byte* in = nullptr;
    size_t in_size = 0;
    // Bytes done, those of the header first where there is one.
    size_t sent = 0;
    size_t received = 0;
    Call header;  // of the peer
  };

  TcpCollective(std::vector<FileDescriptor> sockets, int rank, size_t capacity_floats);

  static std::string Describe(const Call& call);

  // Moves everything in transfers_; with `header` each side first says which call it makes.
  absl::Status Exchange(bool header, absl::Time deadline);
  // As much as goes without waiting. True if anything moved.
  absl::StatusOr<bool> Move(int peer, bool header);
  absl::StatusOr<bool> Send(int peer, bool header);
  absl::StatusOr<bool> Receive(int peer, bool header);
  bool Finished(const Transfer& transfer, bool header) const;
  // Until a socket can go on, or the group breaks. A peer whose part is done but who hung up, if those are
  // watched; this rank if there is none.
  absl::StatusOr<int> Sleep(bool header, bool watch_finished, absl::Duration remaining);
  absl::Status Gone(int peer, const std::string& how);
  Transfer& Begin(int peer);
  void BeginCall(Op op, size_t size, int root = 0);

  absl::Status SumWhole(size_t count, absl::Time deadline);
  absl::Status SumSlices(size_t count, absl::Time deadline);

  // Breaks the group with `reason` unless it is broken; returns why it is broken.
  absl::Status Break(const absl::Status& reason);
  absl::Status Failure();

  const int rank_;
  const int world_size_;
  const size_t capacity_floats_;
  const absl::Duration spin_;
  const std::vector<FileDescriptor> sockets_;  // by rank

  // Of the one thread that makes the calls.
  std::vector<Transfer> transfers_;  // by rank; this rank's own stays empty
  Call call_;                        // the present or last one
  uint64_t calls_ = 0;
  std::vector<float> partial_;   // [capacity_floats]
  std::vector<float> incoming_;  // partial sums of the peers: whole ones, or their part of this rank's slice
  std::vector<float> result_;    // [capacity_floats]

  // Not absl::Mutex: the distributions' build of it is opaque to the thread sanitizer.
  std::mutex mu_;
  absl::Status failure_;  // guarded by mu_
};

}  // namespace lancet
