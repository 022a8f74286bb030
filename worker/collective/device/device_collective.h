// Collective operations between the ranks of a group on their devices. One object per rank and epoch.
//
// Operations are enqueued on the context's stream and may be captured in a graph; every rank enqueues the
// same ones in the same order. Sums are formed in rank order 0, 1, ..., in f32, so the result is the same
// bytes on every rank, from run to run and however many rows a sum has. What happens when a peer is gone:
// CudaContext::Wait, which asks Check(), returns Unavailable naming the rank within milliseconds; after Abort
// it returns the given status. Any failure breaks the group for good, on the host as well: all later calls
// return the same error, and the group is formed anew with a new object.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/bf16.h"
#include "kernels/cuda/cuda_context.h"
#include "kernels/cuda/few_rows_linear.h"
#include "kernels/cuda/peer_ops.h"
#include "kernels/cuda/stream_watch.h"
#include "worker/collective/collective.h"
#include "worker/collective/device_transport.h"

namespace lancet {

// Operations of a lane follow each other; lanes know nothing of each other. Sums of the halves may be fetched
// while the other half is computed.
enum class DeviceLane { kFew = 0, kMany = 1, kFirstHalf = 2, kSecondHalf = 3 };
inline constexpr int kDeviceLanes = 4;

struct DeviceCollectiveOptions {
  DeviceTransport transport = DeviceTransport::kAuto;
  // Of the partial sums of a rank in each lane, at most; equal on all ranks.
  std::array<int64_t, kDeviceLanes> lane_bytes{};
  bool share = true;  // for measurements: false leaves out what can_share and can_fetch offer
  absl::Time create_deadline = absl::InfinitePast();
};

struct RowSum {
  DeviceLane lane = DeviceLane::kMany;
  bool is_f32 = false;  // the partial sums; else bf16
  int64_t rows = 0;
  int64_t cols = 0;  // a multiple of 8
  int64_t bytes() const { return rows * cols * (is_f32 ? 4 : 2); }
};

class DeviceCollective : public StreamWatch {
 public:
  // `host` connects the same ranks, is used from the calling thread, and stays until Disconnect or the
  // destructor. Called by every rank at the same time. InvalidArgument for more than
  // cuda::kMaxPeers ranks; Unimplemented if the ranks cannot reach each other in the way asked for; else what
  // `host` says.
  static absl::StatusOr<std::unique_ptr<DeviceCollective>> Create(const CudaContext& ctx, Collective* host,
                                                                  const DeviceCollectiveOptions& options);

  int rank() const { return rank_; }
  int world_size() const { return world_size_; }
  // "peer memory", "NCCL 2.28.9".
  virtual std::string name() const = 0;

  // Where the products of the lane's next sum put this rank's partial sums, [rows, cols]. InvalidArgument
  // beyond the capacity.
  virtual absl::StatusOr<void*> NextPartials(const RowSum& sum) = 0;
  // x[r] = bf16(x[r] + bf16(sum over the ranks of partial r)); x: [rows, cols], the same on every rank. Reads
  // what NextPartials gave. With norm.y, rows are normalised as well. On `stream`, which may change from sum
  // to sum as long as the lane's operations stay in order.
  virtual absl::Status AddSums(const RowSum& sum, bf16* x, const cuda::RowNorm& norm,
                               cudaStream_t stream) = 0;
  // Whether sums of several lanes may be on their way at the same time.
  virtual bool lanes_overlap() const = 0;

  // AddSums in two steps, in the lanes of halves: the peers' partial sums are brought here on `stream`, which
  // follows the products, by the copy engines, without a multiprocessor; and then added on another stream
  // that follows it.
  virtual bool can_fetch() const { return false; }
  virtual absl::Status Fetch(const RowSum& sum, cudaStream_t stream);
  virtual absl::Status AddFetched(const RowSum& sum, bf16* x, const cuda::RowNorm& norm, cudaStream_t stream);

  // In the lane kFew, where the products themselves hand their sums to every rank: the next sum's inboxes,
  // and the sum of what comes. As AddSums otherwise.
  virtual bool can_share() const { return false; }
  virtual absl::StatusOr<cuda::SharedSums> NextShared(const RowSum& sum);
  virtual absl::Status AddShared(const RowSum& sum, bf16* x, cudaStream_t stream);

  // all = `bytes` of rank 0's `mine`, rank 1's, ...: device memory, in 16s. In the lane kMany, on the
  // context's stream.
  virtual absl::Status AllGather(const void* mine, void* all, int64_t bytes) = 0;

  // Operations that are replayed from a graph must find the collective as it was when they were captured: to
  // be called before either, on every rank. A graph holds an even number of operations of each lane. On the
  // context's stream.
  virtual absl::Status Align() = 0;
  // Forgets what was enqueued since Align: a capture that failed, of which nothing ran.
  virtual void Rewind() {}

  // --- StreamWatch, and the thread that makes the calls. ---
  absl::Status Check() override;
  void Abandon(const absl::Status& reason) override { Break(reason).IgnoreError(); }
  // OK, or why the group is broken.
  absl::Status Failure() override;

  // Thread-safe. Ends what is enqueued and later calls of this rank with `reason`, and the peers' as well.
  void Abort(absl::Status reason);

  // Ends the epoch, before the object of the next one is made: ends what is enqueued and lets go of the
  // peers' memory. Later calls fail. The host's collective is not touched any more.
  void Disconnect();

 protected:
  DeviceCollective(const CudaContext& ctx, Collective* host)
      : ctx_(ctx), host_(host), rank_(host->rank()), world_size_(host->world_size()) {}

  // Normalises rows that a sum could not on the way.
  absl::Status Normalise(const RowSum& sum, const bf16* x, const cuda::RowNorm& norm,
                         cudaStream_t stream) const;

  // Ends what is enqueued on this rank. Any thread, more than once.
  virtual void EndPending() = 0;
  virtual void LetGo() {}
  // An error of the transport itself, if it has one.
  virtual absl::Status CheckTransport() { return absl::OkStatus(); }

  // Returns why the group is broken: `reason`, or the reason before.
  absl::Status Break(const absl::Status& reason);

  const CudaContext& ctx_;
  Collective* const host_;
  const int rank_;
  const int world_size_;

 private:
  // Not absl::Mutex: the distributions' build of it is opaque to the thread sanitizer.
  std::mutex mu_;
  absl::Status failure_;  // guarded by mu_
};

}  // namespace lancet
