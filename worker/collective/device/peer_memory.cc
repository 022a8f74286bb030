#include "worker/collective/device/peer_memory.h"

#include <array>
#include <cstring>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "common/status_macros.h"
#include "kernels/cuda/cuda_status.h"
#include "worker/collective/peer_watch.h"

namespace lancet {
namespace {

template <typename T>
absl::Span<const std::byte> BytesOf(const T& value) {
  return {reinterpret_cast<const std::byte*>(&value), sizeof(T)};
}
template <typename T>
absl::Span<std::byte> BytesOf(std::vector<T>& values) {
  return {reinterpret_cast<std::byte*>(values.data()), values.size() * sizeof(T)};
}

// What no other running machine has.
std::array<char, 64> HostId() {
  std::array<char, 64> id{};
  std::ifstream("/proc/sys/kernel/random/boot_id").read(id.data(), id.size() - 1);
  return id;
}

}  // namespace

// What a rank tells the others of its piece.
struct PeerMemory::Card {
  int32_t code = 0;  // absl::StatusCode of what has been done so far
  int32_t ordinal = 0;
  std::array<char, 64> host{};  // zeros if unknown
  ProcessId process;
  uint64_t address = 0;  // of use in the same process
  cudaUUID_t device{};
  cudaIpcMemHandle_t handle{};
};

absl::StatusOr<std::unique_ptr<PeerMemory>> PeerMemory::Create(const CudaContext& ctx, Collective& host,
                                                               int64_t bytes, absl::Time deadline) {
  std::unique_ptr<PeerMemory> memory(new PeerMemory);
  Card card;
  const auto prepare = [&]() -> absl::Status {
    LANCET_ASSIGN_OR_RETURN(memory->own_, DeviceArray<uint8_t>::Create(bytes));
    LANCET_CUDA_RETURN_IF_ERROR(
        cudaMemsetAsync(memory->own_.data(), 0, static_cast<size_t>(bytes), ctx.stream()));
    LANCET_RETURN_IF_ERROR(ctx.Wait(absl::Seconds(30)));
    card.process = ProcessId::Self();
    card.host = HostId();
    card.address = reinterpret_cast<uint64_t>(memory->own_.data());
    card.device = ctx.properties().uuid;
    LANCET_CUDA_RETURN_IF_ERROR(cudaGetDevice(&card.ordinal));
    // Of no use to threads of this process, so a failure shows where it is opened.
    if (cudaIpcGetMemHandle(&card.handle, memory->own_.data()) != cudaSuccess) cudaGetLastError();
    return absl::OkStatus();
  };
  // Whatever happens, the peers are told: they count on the exchanges below.
  absl::Status status = prepare();
  card.code = static_cast<int32_t>(status.code());
  std::vector<Card> cards(host.world_size());
  LANCET_RETURN_IF_ERROR(host.AllGather(BytesOf(card), BytesOf(cards), deadline));
  if (status.ok()) status = memory->Open(ctx, cards, host.rank());
  const int32_t mine = static_cast<int32_t>(status.code());
  std::vector<int32_t> codes(host.world_size());
  LANCET_RETURN_IF_ERROR(host.AllGather(BytesOf(mine), BytesOf(codes), deadline));
  LANCET_RETURN_IF_ERROR(status);
  for (int rank = 0; rank < host.world_size(); ++rank) {
    if (codes[rank] != 0) {
      return absl::Status(static_cast<absl::StatusCode>(codes[rank]),
                          absl::StrCat("rank ", rank, " cannot share device memory"));
    }
  }
  return memory;
}

absl::Status PeerMemory::Open(const CudaContext& ctx, const std::vector<Card>& cards, int rank) {
  const ProcessId self = ProcessId::Self();
  pieces_.resize(cards.size());
  int ordinal = 0;
  LANCET_CUDA_RETURN_IF_ERROR(cudaGetDevice(&ordinal));
  for (size_t peer = 0; peer < cards.size(); ++peer) {
    const Card& card = cards[peer];
    if (static_cast<int>(peer) == rank) {
      pieces_[peer] = own_.data();
      continue;
    }
    if (card.code != 0) {
      return absl::Status(static_cast<absl::StatusCode>(card.code),
                          absl::StrCat("rank ", peer, " has no device memory to share"));
    }
    if (card.host != HostId()) {
      return absl::UnimplementedError(absl::StrCat("rank ", peer, " is on another host"));
    }
    const bool same_device = std::memcmp(&card.device, &ctx.properties().uuid, sizeof(card.device)) == 0;
    shares_device_ = shares_device_ || same_device;
    if (card.process.pid == self.pid && card.process.pid_namespace == self.pid_namespace) {
      if (same_device) {
        return absl::UnimplementedError(absl::StrCat(
            "ranks ", rank, " and ", peer,
            " are threads of one process on one device: freeing memory of one would wait "
            "for kernels of the other, which may wait for the first; give each a device or a process"));
      }
      const cudaError_t error = cudaDeviceEnablePeerAccess(card.ordinal, 0);
      if (error != cudaSuccess) cudaGetLastError();
      if (error != cudaSuccess && error != cudaErrorPeerAccessAlreadyEnabled) {
        return absl::UnimplementedError(absl::StrCat("device ", ordinal, " cannot address device ",
                                                     card.ordinal, ": ", cudaGetErrorString(error)));
      }
      pieces_[peer] = reinterpret_cast<uint8_t*>(card.address);
      continue;
    }
    void* opened = nullptr;
    const cudaError_t error = cudaIpcOpenMemHandle(&opened, card.handle, cudaIpcMemLazyEnablePeerAccess);
    if (error != cudaSuccess) {
      cudaGetLastError();
      return absl::UnimplementedError(
          absl::StrCat("the memory of rank ", peer, " cannot be opened: ", cudaGetErrorString(error)));
    }
    imported_.push_back(opened);
    pieces_[peer] = static_cast<uint8_t*>(opened);
  }
  return absl::OkStatus();
}

void PeerMemory::Disconnect() {
  for (void* opened : imported_) cudaIpcCloseMemHandle(opened);
  imported_.clear();
}

}  // namespace lancet
