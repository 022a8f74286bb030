// A piece of device memory per rank that all ranks of a group can address.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kernels/cuda/cuda_context.h"
#include "kernels/cuda/device_array.h"
#include "worker/collective/collective.h"

namespace lancet {

// Ranks are processes of one host, several of which may share a device, or threads of one process with a
// device each.
class PeerMemory {
 public:
  // Every rank calls it, with the same size; the memory is zeroed. All ranks fail if one does: Unimplemented
  // if a device cannot address another's memory or two threads of one process share a device,
  // ResourceExhausted, or what `host` says.
  static absl::StatusOr<std::unique_ptr<PeerMemory>> Create(const CudaContext& ctx, Collective& host,
                                                            int64_t bytes, absl::Time deadline);
  ~PeerMemory() { Disconnect(); }
  PeerMemory(const PeerMemory&) = delete;
  PeerMemory& operator=(const PeerMemory&) = delete;

  // The piece of a rank, as this rank's device addresses it.
  uint8_t* of(int rank) const { return pieces_[rank]; }
  // Whether another rank uses the same device as this one.
  bool shares_device() const { return shares_device_; }

  // Lets go of the peers' pieces; the own one stays until the object goes, and it must stay until all peers
  // have let go: a new epoch's PeerMemory is formed in between.
  void Disconnect();

 private:
  PeerMemory() = default;
  struct Card;
  absl::Status Open(const CudaContext& ctx, const std::vector<Card>& cards, int rank);

  DeviceArray<uint8_t> own_;
  std::vector<uint8_t*> pieces_;
  std::vector<void*> imported_;
  bool shares_device_ = false;
};

}  // namespace lancet
