#include "worker/collective/device/device_collective.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/peer_ops.h"
#include "kernels/cuda/row_ops.h"
#include "worker/collective/device/nccl_collective.h"
#include "worker/collective/device/peer_collective.h"

namespace lancet {

absl::StatusOr<std::unique_ptr<DeviceCollective>> DeviceCollective::Create(
    const CudaContext& ctx, Collective* host, const DeviceCollectiveOptions& options) {
  if (host->world_size() > cuda::kMaxPeers) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a group of ", host->world_size(), " ranks on devices; at most ", cuda::kMaxPeers, " are supported"));
  }
  std::string refusal;
  if (options.transport != DeviceTransport::kNccl) {
    absl::StatusOr<std::unique_ptr<DeviceCollective>> peers = PeerCollective::Create(ctx, host, options);
    // All ranks fail alike here, so all go on together.
    if (peers.ok() || options.transport == DeviceTransport::kPeerMemory ||
        peers.status().code() != absl::StatusCode::kUnimplemented) {
      return peers;
    }
    refusal = std::string(peers.status().message());
  }
  absl::StatusOr<std::unique_ptr<DeviceCollective>> nccl = NcclCollective::Create(ctx, host, options);
  if (nccl.ok() && !refusal.empty()) {
    LogInfo("the ranks' devices meet through NCCL", {{"reason", refusal}});
  }
  return nccl;
}

absl::Status DeviceCollective::Check() {
  LANCET_RETURN_IF_ERROR(Failure());
  if (const absl::Status status = host_->Check(); !status.ok()) return Break(status);
  if (const absl::Status status = CheckTransport(); !status.ok()) return Break(status);
  return absl::OkStatus();
}

void DeviceCollective::Abort(absl::Status reason) {
  Break(reason.ok() ? absl::AbortedError("the collective was aborted") : std::move(reason)).IgnoreError();
}

absl::Status DeviceCollective::Fetch(const RowSum& /*sum*/, cudaStream_t /*stream*/) {
  return absl::UnimplementedError(absl::StrCat(name(), " brings no partial sums without adding them"));
}

absl::Status DeviceCollective::AddFetched(const RowSum& /*sum*/, bf16* /*x*/, const cuda::RowNorm& /*norm*/,
                                          cudaStream_t /*stream*/) {
  return absl::UnimplementedError(absl::StrCat(name(), " brings no partial sums without adding them"));
}

absl::StatusOr<cuda::SharedSums> DeviceCollective::NextShared(const RowSum& /*sum*/) {
  return absl::UnimplementedError(absl::StrCat(name(), " has no inboxes for products"));
}

absl::Status DeviceCollective::AddShared(const RowSum& /*sum*/, bf16* /*x*/, cudaStream_t /*stream*/) {
  return absl::UnimplementedError(absl::StrCat(name(), " has no inboxes for products"));
}

void DeviceCollective::Disconnect() {
  {
    const std::lock_guard<std::mutex> lock(mu_);
    if (failure_.ok()) failure_ = absl::FailedPreconditionError("the epoch of this collective has ended");
  }
  EndPending();
  ctx_.WaitForIdle(absl::Seconds(5)).IgnoreError();
  LetGo();
}

absl::Status DeviceCollective::Failure() {
  const std::lock_guard<std::mutex> lock(mu_);
  return failure_;
}

absl::Status DeviceCollective::Break(const absl::Status& reason) {
  {
    const std::lock_guard<std::mutex> lock(mu_);
    if (!failure_.ok()) return failure_;
    failure_ = reason;
  }
  EndPending();
  host_->Abort(reason);
  return reason;
}

absl::Status DeviceCollective::Normalise(const RowSum& sum, const bf16* x, const cuda::RowNorm& norm,
                                         cudaStream_t stream) const {
  if (norm.y == nullptr) return absl::OkStatus();
  const int64_t second = std::clamp<int64_t>(norm.second_begin, 0, sum.rows);
  cuda::RowOutput output;
  output.bf16_rows = norm.y;
  LANCET_CUDA_RETURN_IF_ERROR(
      cuda::RmsNorm(x, sum.cols, norm.first, norm.eps, second, sum.cols, output, stream));
  output.bf16_rows += second * sum.cols;
  return CudaStatus(cuda::RmsNorm(x + second * sum.cols, sum.cols, norm.second, norm.eps, sum.rows - second,
                                  sum.cols, output, stream),
                    "norm of summed rows");
}

}  // namespace lancet
