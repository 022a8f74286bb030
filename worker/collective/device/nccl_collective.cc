#include "worker/collective/device/nccl_collective.h"

#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/partition.h"
#include "common/status_macros.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/peer_ops.h"

namespace lancet {
namespace {

constexpr absl::Duration kNap = absl::Microseconds(20);
// For the communicator to take a call: it may first have to set up connections.
constexpr absl::Duration kSettleTimeout = absl::Seconds(30);
// Peers are looked at once in so many questions to the communicator.
constexpr int kLooks = 50;

// From here on each rank adds up a part of the rows and sends its results, as in PeerCollective.
constexpr int kSplitRanks = 3;
constexpr int64_t kSplitRows = 128;

struct IdMessage {
  int32_t code = 0;  // ncclResult_t of rank 0
  ncclUniqueId id{};
};

absl::Status NcclStatus(ncclResult_t result, const char* call) {
  if (result == ncclSuccess) return absl::OkStatus();
  const std::string text =
      absl::StrCat(call, ": ", ncclGetErrorString(result), " (", ncclGetLastError(nullptr), ")");
  return result == ncclRemoteError ? absl::UnavailableError(text) : absl::InternalError(text);
}

// Before NCCL reads its environment for the first time.
void SetDefaults() {
  static std::once_flag once;
  std::call_once(once, [] { setenv("NCCL_NVLS_ENABLE", "0", /*overwrite=*/0); });
}

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceCollective>> NcclCollective::Create(
    const CudaContext& ctx, Collective* host, const DeviceCollectiveOptions& options) {
  // NCCL refuses two ranks on one device after a long time: asked before.
  std::vector<cudaUUID_t> devices(host->world_size());
  const cudaUUID_t mine = ctx.properties().uuid;
  LANCET_RETURN_IF_ERROR(
      host->AllGather({reinterpret_cast<const std::byte*>(&mine), sizeof(mine)},
                      {reinterpret_cast<std::byte*>(devices.data()), devices.size() * sizeof(mine)},
                      options.create_deadline));
  for (size_t a = 0; a < devices.size(); ++a) {
    for (size_t b = 0; b < a; ++b) {
      if (std::memcmp(&devices[a], &devices[b], sizeof(mine)) != 0) continue;
      return absl::UnimplementedError(
          absl::StrCat("ranks ", b, " and ", a, " are on one device, which NCCL does not support"));
    }
  }
  std::unique_ptr<NcclCollective> collective(new NcclCollective(ctx, host, options));
  LANCET_RETURN_IF_ERROR(collective->Form(options.create_deadline));
  return collective;
}

absl::Status NcclCollective::Form(absl::Time deadline) {
  SetDefaults();
  for (const int lane : {static_cast<int>(DeviceLane::kFew), static_cast<int>(DeviceLane::kMany)}) {
    LANCET_ASSIGN_OR_RETURN(parts_[lane], DeviceArray<uint8_t>::Create(world_size_ * lane_bytes_[lane]));
  }
  IdMessage message;
  if (rank_ == 0) message.code = ncclGetUniqueId(&message.id);
  LANCET_RETURN_IF_ERROR(
      host_->Broadcast({reinterpret_cast<std::byte*>(&message), sizeof(message)}, 0, deadline));
  LANCET_RETURN_IF_ERROR(NcclStatus(static_cast<ncclResult_t>(message.code), "ncclGetUniqueId"));
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  ncclComm_t comm = nullptr;
  ncclResult_t result = ncclCommInitRankConfig(&comm, world_size_, message.id, rank_, &config);
  {
    const std::lock_guard<std::mutex> lock(comm_mu_);
    comm_ = comm;
  }
  for (int looks = 1; result == ncclInProgress || result == ncclSuccess; ++looks) {
    if (const ncclResult_t asked = ncclCommGetAsyncError(comm, &result); asked != ncclSuccess) result = asked;
    if (result != ncclInProgress) break;
    absl::SleepFor(kNap);
    if (looks % kLooks == 0) LANCET_RETURN_IF_ERROR(Check());
    if (absl::Now() > deadline) {
      return Break(absl::DeadlineExceededError("the communicator of the devices did not form in time"));
    }
  }
  if (result != ncclSuccess) return Break(NcclStatus(result, "ncclCommInitRankConfig"));
  return absl::OkStatus();
}

NcclCollective::~NcclCollective() {
  EndPending();
  ctx_.WaitForIdle(absl::Seconds(5)).IgnoreError();
}

void NcclCollective::EndPending() {
  const std::lock_guard<std::mutex> lock(comm_mu_);
  if (comm_ == nullptr) return;
  ncclCommAbort(comm_);
  comm_ = nullptr;
}

absl::Status NcclCollective::CheckTransport() {
  const std::lock_guard<std::mutex> lock(comm_mu_);
  if (comm_ == nullptr) return absl::OkStatus();  // Failure() says why
  ncclResult_t state = ncclSuccess;
  ncclResult_t result = ncclCommGetAsyncError(comm_, &state);
  if (result == ncclSuccess) result = state;
  return result == ncclInProgress ? absl::OkStatus() : NcclStatus(result, "NCCL");
}

std::string NcclCollective::name() const {
  int version = 0;
  ncclGetVersion(&version);
  return absl::StrCat("NCCL ", version / 10000, ".", version / 100 % 100, ".", version % 100);
}

absl::Status NcclCollective::Settle(ncclResult_t result, const char* call) {
  const absl::Time deadline = absl::Now() + kSettleTimeout;
  for (int looks = 1; result == ncclInProgress; ++looks) {
    {
      const std::lock_guard<std::mutex> lock(comm_mu_);
      if (comm_ == nullptr) break;
      if (const ncclResult_t asked = ncclCommGetAsyncError(comm_, &result); asked != ncclSuccess)
        result = asked;
    }
    if (result != ncclInProgress) break;
    if (looks % kLooks == 0) {
      LANCET_RETURN_IF_ERROR(Check());
      absl::SleepFor(kNap);
    }
    if (absl::Now() > deadline)
      return Break(absl::DeadlineExceededError(absl::StrCat(call, " is not taken")));
  }
  LANCET_RETURN_IF_ERROR(Failure());
  if (result != ncclSuccess) return Break(NcclStatus(result, call));
  return absl::OkStatus();
}

absl::StatusOr<void*> NcclCollective::NextPartials(const RowSum& sum) {
  LANCET_RETURN_IF_ERROR(Failure());
  if (sum.bytes() > lane_bytes_[static_cast<int>(sum.lane)]) {
    return absl::InvalidArgumentError(absl::StrCat("a sum of ", sum.bytes(), " bytes; the lane has room for ",
                                                   lane_bytes_[static_cast<int>(sum.lane)]));
  }
  return PartsOf(sum) + rank_ * sum.bytes();
}

absl::Status NcclCollective::AddSums(const RowSum& sum, bf16* x, const cuda::RowNorm& norm,
                                     cudaStream_t stream) {
  LANCET_RETURN_IF_ERROR(Failure());
  uint8_t* const parts = PartsOf(sum);
  cuda::SumRowsArgs args;
  args.ranks = world_size_;
  for (int rank = 0; rank < world_size_; ++rank) args.partials[rank] = parts + rank * sum.bytes();
  args.is_f32 = sum.is_f32;
  args.end = sum.rows;
  args.cols = sum.cols;
  args.x = x;
  if (world_size_ < kSplitRanks || sum.rows < kSplitRows) {
    LANCET_RETURN_IF_ERROR(Gather(parts + rank_ * sum.bytes(), parts, sum.bytes(), stream));
    const bool on_the_way = sum.cols <= cuda::kMaxNormedCols;
    if (on_the_way) args.norm = norm;
    LANCET_CUDA_RETURN_IF_ERROR(cuda::SumRows(args, nullptr, stream));
    return on_the_way ? absl::OkStatus() : Normalise(sum, x, norm, stream);
  }
  const Range mine = SplitEvenly(sum.rows, rank_, world_size_);
  args.begin = mine.begin;
  args.end = mine.end;
  LANCET_RETURN_IF_ERROR(ExchangeParts(sum, stream));
  LANCET_CUDA_RETURN_IF_ERROR(cuda::SumRows(args, nullptr, stream));
  LANCET_RETURN_IF_ERROR(ShareSums(sum, x, stream));
  return Normalise(sum, x, norm, stream);
}

absl::Status NcclCollective::ExchangeParts(const RowSum& sum, cudaStream_t stream) {
  ncclResult_t result = ncclSuccess;
  {
    const std::lock_guard<std::mutex> lock(comm_mu_);
    if (comm_ == nullptr) return Failure();
    ncclGroupStart();
    uint8_t* const parts = PartsOf(sum);
    const int64_t row_bytes = sum.rows > 0 ? sum.bytes() / sum.rows : 0;
    const Range mine = SplitEvenly(sum.rows, rank_, world_size_);
    for (int peer = 0; peer < world_size_; ++peer) {
      if (peer == rank_) continue;
      const Range theirs = SplitEvenly(sum.rows, peer, world_size_);
      ncclSend(parts + rank_ * sum.bytes() + theirs.begin * row_bytes,
               static_cast<size_t>(theirs.size() * row_bytes), ncclInt8, peer, comm_, stream);
      ncclRecv(parts + peer * sum.bytes() + mine.begin * row_bytes,
               static_cast<size_t>(mine.size() * row_bytes), ncclInt8, peer, comm_, stream);
    }
    // Errors of the calls within a group are those of its end.
    result = ncclGroupEnd();
  }
  return Settle(result, "exchange of partial sums");
}

absl::Status NcclCollective::ShareSums(const RowSum& sum, bf16* x, cudaStream_t stream) {
  ncclResult_t result = ncclSuccess;
  {
    const std::lock_guard<std::mutex> lock(comm_mu_);
    if (comm_ == nullptr) return Failure();
    ncclGroupStart();
    const Range mine = SplitEvenly(sum.rows, rank_, world_size_);
    for (int peer = 0; peer < world_size_; ++peer) {
      if (peer == rank_) continue;
      const Range theirs = SplitEvenly(sum.rows, peer, world_size_);
      ncclSend(x + mine.begin * sum.cols, static_cast<size_t>(mine.size() * sum.cols) * sizeof(bf16),
               ncclInt8, peer, comm_, stream);
      ncclRecv(x + theirs.begin * sum.cols, static_cast<size_t>(theirs.size() * sum.cols) * sizeof(bf16),
               ncclInt8, peer, comm_, stream);
    }
    result = ncclGroupEnd();
  }
  return Settle(result, "exchange of sums");
}

absl::Status NcclCollective::AllGather(const void* mine, void* all, int64_t bytes) {
  LANCET_RETURN_IF_ERROR(Failure());
  return Gather(mine, all, bytes, ctx_.stream());
}

absl::Status NcclCollective::Gather(const void* mine, void* all, int64_t bytes, cudaStream_t stream) {
  ncclResult_t result = ncclSuccess;
  {
    const std::lock_guard<std::mutex> lock(comm_mu_);
    if (comm_ == nullptr) return Failure();
    result = ncclAllGather(mine, all, static_cast<size_t>(bytes), ncclInt8, comm_, stream);
  }
  return Settle(result, "ncclAllGather");
}

}  // namespace lancet
