#include "worker/collective/device/peer_collective.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/partition.h"
#include "common/status_macros.h"
#include "kernels/cuda/cuda_status.h"

namespace lancet {
namespace {

constexpr int64_t kWordsBytes = 4096;
static_assert(sizeof(cuda::PeerWords) <= kWordsBytes);
constexpr int64_t kSlotAlignment = 4096;
constexpr absl::Duration kEndTimeout = absl::Seconds(5);

// From here on each rank adds up a part of the rows and fetches the others' results: less goes over the links
// than if everybody read everything, at the price of a second meeting.
constexpr int kSplitRanks = 3;
constexpr int64_t kSplitRows = 128;

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceCollective>> PeerCollective::Create(
    const CudaContext& ctx, Collective* host, const DeviceCollectiveOptions& options) {
  Lane lanes[kDeviceLanes];
  int64_t bytes = kDeviceLanes * kWordsBytes;
  for (int i = 0; i < kDeviceLanes; ++i) {
    lanes[i].slot_bytes = (options.lane_bytes[i] + kSlotAlignment - 1) / kSlotAlignment * kSlotAlignment;
    lanes[i].offset = bytes;
    bytes += 2 * lanes[i].slot_bytes;
  }
  // Eight bytes for four, of every rank; with words of their own.
  const int64_t words_offset = bytes;
  const int64_t inbox_offset = words_offset + kWordsBytes;
  const int64_t inbox_bytes = 2 * lanes[static_cast<int>(DeviceLane::kFew)].slot_bytes;
  bytes = inbox_offset + 2 * host->world_size() * inbox_bytes;
  LANCET_ASSIGN_OR_RETURN(std::unique_ptr<PeerMemory> memory,
                          PeerMemory::Create(ctx, *host, bytes, options.create_deadline));
  std::unique_ptr<PeerCollective> collective(new PeerCollective(ctx, host, std::move(memory)));
  LANCET_CUDA_RETURN_IF_ERROR(cudaHostAlloc(reinterpret_cast<void**>(&collective->abandoned_),
                                            sizeof(uint32_t), cudaHostAllocMapped | cudaHostAllocPortable));
  *collective->abandoned_ = 0;
  collective->shares_ = options.share;
  collective->inbox_offset_ = inbox_offset;
  collective->inbox_bytes_ = inbox_bytes;
  const auto make_sync = [&](int64_t offset) {
    cuda::PeerSync sync;
    sync.rank = host->rank();
    sync.ranks = host->world_size();
    for (int rank = 0; rank < host->world_size(); ++rank) {
      sync.words[rank] = reinterpret_cast<cuda::PeerWords*>(collective->memory_->of(rank) + offset);
    }
    sync.abandoned = collective->abandoned_;
    sync.shares_device = collective->memory_->shares_device();
    return sync;
  };
  collective->shared_sync_ = make_sync(words_offset);
  for (int i = 0; i < kDeviceLanes; ++i) {
    Lane& lane = collective->lanes_[i] = std::move(lanes[i]);
    if (i >= static_cast<int>(DeviceLane::kFirstHalf) && collective->can_fetch()) {
      LANCET_ASSIGN_OR_RETURN(lane.inbox, DeviceArray<uint8_t>::Create(2 * lane.slot_bytes));
    }
    lane.sync = make_sync(i * kWordsBytes);
  }
  return collective;
}

PeerCollective::~PeerCollective() {
  EndPending();
  ctx_.WaitForIdle(kEndTimeout).IgnoreError();
  memory_.reset();
  cudaFreeHost(abandoned_);
}

void PeerCollective::EndPending() {
  if (abandoned_ != nullptr) std::atomic_ref<uint32_t>(*abandoned_).store(1);
}

absl::StatusOr<void*> PeerCollective::NextPartials(const RowSum& sum) {
  LANCET_RETURN_IF_ERROR(Failure());
  const Lane& lane = LaneOf(sum);
  if (sum.bytes() > lane.slot_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("a sum of ", sum.bytes(), " bytes; the lane has room for ", lane.slot_bytes));
  }
  return SlotOf(lane, rank_, lane.slot);
}

absl::Status PeerCollective::AddSums(const RowSum& sum, bf16* x, const cuda::RowNorm& norm,
                                     cudaStream_t stream) {
  LANCET_RETURN_IF_ERROR(Failure());
  Lane& lane = LaneOf(sum);
  cuda::SumRowsArgs args;
  args.ranks = world_size_;
  for (int rank = 0; rank < world_size_; ++rank) args.partials[rank] = SlotOf(lane, rank, lane.slot);
  args.is_f32 = sum.is_f32;
  args.end = sum.rows;
  args.cols = sum.cols;
  args.x = x;
  const bool split = world_size_ >= kSplitRanks && sum.rows >= kSplitRows;
  if (!split) {
    lane.slot = 1 - lane.slot;
    const bool on_the_way = sum.cols <= cuda::kMaxNormedCols;
    if (on_the_way) args.norm = norm;
    LANCET_CUDA_RETURN_IF_ERROR(cuda::SumRows(args, &lane.sync, stream));
    return on_the_way ? absl::OkStatus() : Normalise(sum, x, norm, stream);
  }
  const int other = 1 - lane.slot;
  const Range mine = SplitEvenly(sum.rows, rank_, world_size_);
  args.begin = mine.begin;
  args.end = mine.end;
  args.copy = reinterpret_cast<bf16*>(SlotOf(lane, rank_, other));
  LANCET_CUDA_RETURN_IF_ERROR(cuda::SumRows(args, &lane.sync, stream));
  cuda::GatherArgs gather;
  for (int rank = 0; rank < world_size_; ++rank) {
    if (rank == rank_) continue;
    const Range range = SplitEvenly(sum.rows, rank, world_size_);
    gather.from[rank] = SlotOf(lane, rank, other) + range.begin * sum.cols * 2;
    gather.to[rank] = x + range.begin * sum.cols;
    gather.bytes[rank] = range.size() * sum.cols * 2;
  }
  LANCET_CUDA_RETURN_IF_ERROR(cuda::Gather(gather, lane.sync, stream));
  return Normalise(sum, x, norm, stream);
}

absl::Status PeerCollective::Fetch(const RowSum& sum, cudaStream_t stream) {
  LANCET_RETURN_IF_ERROR(Failure());
  Lane& lane = LaneOf(sum);
  if (!can_fetch() || !IsHalf(sum)) return DeviceCollective::Fetch(sum, stream);
  LANCET_CUDA_RETURN_IF_ERROR(cuda::Gather({}, lane.sync, stream));
  LANCET_CUDA_RETURN_IF_ERROR(
      cudaMemcpyAsync(lane.inbox.data() + lane.slot * lane.slot_bytes, SlotOf(lane, 1 - rank_, lane.slot),
                      static_cast<size_t>(sum.bytes()), cudaMemcpyDeviceToDevice, stream));
  lane.fetched = lane.slot;
  lane.slot = 1 - lane.slot;
  return absl::OkStatus();
}

absl::Status PeerCollective::AddFetched(const RowSum& sum, bf16* x, const cuda::RowNorm& norm,
                                        cudaStream_t stream) {
  LANCET_RETURN_IF_ERROR(Failure());
  const Lane& lane = LaneOf(sum);
  if (!can_fetch() || !IsHalf(sum)) return DeviceCollective::AddFetched(sum, x, norm, stream);
  cuda::SumRowsArgs args;
  args.ranks = world_size_;
  args.partials[rank_] = SlotOf(lane, rank_, lane.fetched);
  args.partials[1 - rank_] = lane.inbox.data() + lane.fetched * lane.slot_bytes;
  args.is_f32 = sum.is_f32;
  args.end = sum.rows;
  args.cols = sum.cols;
  args.x = x;
  const bool on_the_way = sum.cols <= cuda::kMaxNormedCols;
  if (on_the_way) args.norm = norm;
  LANCET_CUDA_RETURN_IF_ERROR(cuda::SumRows(args, nullptr, stream));
  return on_the_way ? absl::OkStatus() : Normalise(sum, x, norm, stream);
}

absl::StatusOr<cuda::SharedSums> PeerCollective::NextShared(const RowSum& sum) {
  LANCET_RETURN_IF_ERROR(Failure());
  if (sum.rows * sum.cols * static_cast<int64_t>(sizeof(uint2)) > inbox_bytes_) {
    return absl::InvalidArgumentError(
        absl::StrCat("a shared sum of ", sum.rows, " rows; inboxes have ", inbox_bytes_, " bytes"));
  }
  cuda::SharedSums shared;
  shared.ranks = world_size_;
  for (int rank = 0; rank < world_size_; ++rank) shared.inboxes[rank] = InboxOf(rank, rank_, shared_slot_);
  shared.sums = &shared_sync_.words[rank_]->meetings;
  return shared;
}

absl::Status PeerCollective::AddShared(const RowSum& sum, bf16* x, cudaStream_t stream) {
  LANCET_RETURN_IF_ERROR(Failure());
  cuda::AddSharedArgs args;
  args.ranks = world_size_;
  for (int rank = 0; rank < world_size_; ++rank) args.inboxes[rank] = InboxOf(rank_, rank, shared_slot_);
  args.rows = sum.rows;
  args.cols = sum.cols;
  args.x = x;
  shared_slot_ = 1 - shared_slot_;
  return CudaStatus(cuda::AddShared(args, shared_sync_, stream), "sum of shared rows");
}

absl::Status PeerCollective::AllGather(const void* mine, void* all, int64_t bytes) {
  LANCET_RETURN_IF_ERROR(Failure());
  if (bytes < 0 || bytes % 16 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("AllGather of ", bytes, " bytes; expected a multiple of 16"));
  }
  Lane& lane = lanes_[static_cast<int>(DeviceLane::kMany)];
  for (int64_t done = 0; done < bytes; done += lane.slot_bytes) {
    const int64_t size = std::min(lane.slot_bytes, bytes - done);
    LANCET_CUDA_RETURN_IF_ERROR(
        cudaMemcpyAsync(SlotOf(lane, rank_, lane.slot), static_cast<const char*>(mine) + done,
                        static_cast<size_t>(size), cudaMemcpyDeviceToDevice, ctx_.stream()));
    cuda::GatherArgs args;
    for (int rank = 0; rank < world_size_; ++rank) {
      args.from[rank] = SlotOf(lane, rank, lane.slot);
      args.to[rank] = static_cast<char*>(all) + rank * bytes + done;
      args.bytes[rank] = size;
    }
    LANCET_CUDA_RETURN_IF_ERROR(cuda::Gather(args, lane.sync, ctx_.stream()));
    lane.slot = 1 - lane.slot;
  }
  return absl::OkStatus();
}

void PeerCollective::Rewind() {
  for (Lane& lane : lanes_) lane.slot = 0;
  shared_slot_ = 0;
}

absl::Status PeerCollective::Align() {
  LANCET_RETURN_IF_ERROR(Failure());
  if (shared_slot_ != 0) {
    return absl::InternalError("an odd number of shared sums lies before a pass");
  }
  for (Lane& lane : lanes_) {
    if (lane.slot == 0) continue;
    lane.slot = 0;
    LANCET_CUDA_RETURN_IF_ERROR(cuda::Gather({}, lane.sync, ctx_.stream()));
  }
  return absl::OkStatus();
}

}  // namespace lancet
