// Collectives by kernels that read the peers' memory (kernels/cuda/peer_ops.h).
//
// In a rank's piece of memory each lane has two slots, taken in turn: while the peers still read one, the
// next operation's data goes to the other; by the operation after, everybody has met in between (peer_ops.h),
// so the first is free again.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/peer_ops.h"
#include "worker/collective/device/device_collective.h"
#include "worker/collective/device/peer_memory.h"

namespace lancet {

class PeerCollective final : public DeviceCollective {
 public:
  static absl::StatusOr<std::unique_ptr<DeviceCollective>> Create(const CudaContext& ctx, Collective* host,
                                                                  const DeviceCollectiveOptions& options);
  // Ends what is still enqueued, and waits for that.
  ~PeerCollective() override;

  std::string name() const override { return "peer memory"; }
  absl::StatusOr<void*> NextPartials(const RowSum& sum) override;
  absl::Status AddSums(const RowSum& sum, bf16* x, const cuda::RowNorm& norm, cudaStream_t stream) override;
  bool lanes_overlap() const override { return true; }
  // Of two ranks each needs all of the other's partial sums; of more, that would be too much for the links.
  bool can_fetch() const override { return shares_ && world_size_ == 2; }
  absl::Status Fetch(const RowSum& sum, cudaStream_t stream) override;
  absl::Status AddFetched(const RowSum& sum, bf16* x, const cuda::RowNorm& norm,
                          cudaStream_t stream) override;
  bool can_share() const override { return shares_; }
  absl::StatusOr<cuda::SharedSums> NextShared(const RowSum& sum) override;
  absl::Status AddShared(const RowSum& sum, bf16* x, cudaStream_t stream) override;
  absl::Status AllGather(const void* mine, void* all, int64_t bytes) override;
  absl::Status Align() override;
  void Rewind() override;

 private:
  struct Lane {
    cuda::PeerSync sync;
    int64_t offset = 0;  // of its first slot
    int64_t slot_bytes = 0;
    int slot = 0;                // of the next operation
    int fetched = 0;             // of the last one, if that was a Fetch
    DeviceArray<uint8_t> inbox;  // two slots of what was fetched
  };

  PeerCollective(const CudaContext& ctx, Collective* host, std::unique_ptr<PeerMemory> memory)
      : DeviceCollective(ctx, host), memory_(std::move(memory)) {}

  void EndPending() override;
  void LetGo() override { memory_->Disconnect(); }
  static bool IsHalf(const RowSum& sum) {
    return sum.lane == DeviceLane::kFirstHalf || sum.lane == DeviceLane::kSecondHalf;
  }
  Lane& LaneOf(const RowSum& sum) { return lanes_[static_cast<int>(sum.lane)]; }
  uint8_t* SlotOf(const Lane& lane, int rank, int slot) const {
    return memory_->of(rank) + lane.offset + slot * lane.slot_bytes;
  }

  // What `from` sends to `to`, in one of the inboxes of the lane kFew.
  uint2* InboxOf(int to, int from, int slot) const {
    return reinterpret_cast<uint2*>(memory_->of(to) + inbox_offset_ +
                                    (slot * world_size_ + from) * inbox_bytes_);
  }

  std::unique_ptr<PeerMemory> memory_;
  bool shares_ = true;
  int64_t inbox_offset_ = 0;
  int64_t inbox_bytes_ = 0;
  int shared_slot_ = 0;            // of the next shared sum
  uint32_t* abandoned_ = nullptr;  // of the host, mapped
  Lane lanes_[kDeviceLanes];
  cuda::PeerSync shared_sync_;
};

}  // namespace lancet
