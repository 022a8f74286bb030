// Collectives through NCCL, which moves the bytes; the sums are ours (kernels/cuda/peer_ops.h), because the
// order in which NCCL adds depends on the size of a message.
#pragma once

#include <nccl.h>

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/device_array.h"
#include "worker/collective/device/device_collective.h"

namespace lancet {

// The communicator never blocks: whatever it still has to do after a call is asked for in short intervals.
// NVLink multicast is off unless NCCL_NVLS_ENABLE says otherwise.
class NcclCollective final : public DeviceCollective {
 public:
  // Rank 0 makes the group's id and sends it through `host`. Unimplemented (on all ranks) where NCCL refuses
  // the group: two ranks on one device.
  static absl::StatusOr<std::unique_ptr<DeviceCollective>> Create(const CudaContext& ctx, Collective* host,
                                                                  const DeviceCollectiveOptions& options);
  ~NcclCollective() override;

  std::string name() const override;
  absl::StatusOr<void*> NextPartials(const RowSum& sum) override;
  absl::Status AddSums(const RowSum& sum, bf16* x, const cuda::RowNorm& norm, cudaStream_t stream) override;
  // A communicator has one order of operations.
  bool lanes_overlap() const override { return false; }
  absl::Status AllGather(const void* mine, void* all, int64_t bytes) override;
  absl::Status Align() override { return Failure(); }

 private:
  NcclCollective(const CudaContext& ctx, Collective* host, const DeviceCollectiveOptions& options)
      : DeviceCollective(ctx, host), lane_bytes_(options.lane_bytes) {}

  absl::Status Form(absl::Time deadline);
  void EndPending() override;
  absl::Status CheckTransport() override;
  // The outcome of a call: waits until the communicator has taken it.
  absl::Status Settle(ncclResult_t result, const char* call);
  // Each rank's rows of its range to everybody's place for them.
  absl::Status ExchangeParts(const RowSum& sum, cudaStream_t stream);
  absl::Status ShareSums(const RowSum& sum, bf16* x, cudaStream_t stream);
  absl::Status Gather(const void* mine, void* all, int64_t bytes, cudaStream_t stream);
  // Partial sums of all ranks in a lane, each rank's at rank * (bytes of the sum).
  uint8_t* PartsOf(const RowSum& sum) const { return parts_[static_cast<int>(sum.lane)].data(); }

  const std::array<int64_t, kDeviceLanes> lane_bytes_;
  DeviceArray<uint8_t> parts_[kDeviceLanes];
  std::mutex comm_mu_;
  ncclComm_t comm_ = nullptr;  // guarded by comm_mu_; null once aborted
};

}  // namespace lancet
