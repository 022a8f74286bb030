#include "kernels/cuda/cuda_context.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/status_macros.h"
#include "kernels/cuda/cuda_status.h"

namespace lancet {
namespace {

// Most iterations end within milliseconds: spinning that long costs less than a late wake-up.
constexpr absl::Duration kSpin = absl::Milliseconds(20);
constexpr absl::Duration kNap = absl::Microseconds(50);
// Between looks at a watch.
constexpr absl::Duration kWatchInterval = absl::Milliseconds(5);
constexpr absl::Duration kAbandonTimeout = absl::Seconds(1);

template <typename Query>
absl::Status Poll(Query query, absl::Duration timeout, absl::Duration spin = kSpin) {
  const absl::Time start = absl::Now();
  for (;;) {
    const cudaError_t state = query();
    if (state == cudaSuccess) return absl::OkStatus();
    if (state != cudaErrorNotReady) return CudaStatus(state, "work on the device");
    const absl::Duration waited = absl::Now() - start;
    if (waited > timeout) {
      return absl::DeadlineExceededError(
          absl::StrCat("the device is still busy after ", absl::FormatDuration(waited)));
    }
    if (waited > spin) absl::SleepFor(kNap);
  }
}

}  // namespace

int CudaDeviceCount() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    cudaGetLastError();  // or a later launch would report it
    return 0;
  }
  return count;
}

absl::StatusOr<std::unique_ptr<CudaContext>> CudaContext::Create(int ordinal) {
  int count = 0;
  LANCET_CUDA_RETURN_IF_ERROR(cudaGetDeviceCount(&count));
  if (ordinal < 0 || ordinal >= count) {
    return absl::InvalidArgumentError(absl::StrCat("CUDA device ", ordinal, " of ", count));
  }
  std::unique_ptr<CudaContext> context(new CudaContext);
  LANCET_CUDA_RETURN_IF_ERROR(cudaSetDevice(ordinal));
  LANCET_CUDA_RETURN_IF_ERROR(cudaGetDeviceProperties(&context->properties_, ordinal));
  if (context->properties_.major < 8) {
    return absl::UnimplementedError(
        absl::StrCat(context->description(), ": compute capability 8.0 is the least"));
  }
  LANCET_CUDA_RETURN_IF_ERROR(cudaStreamCreateWithFlags(context->stream_.receive(), cudaStreamNonBlocking));
  LANCET_CUBLAS_RETURN_IF_ERROR(cublasLtCreate(context->cublas_.receive()));
  LANCET_CUDNN_RETURN_IF_ERROR(cudnnCreate(context->cudnn_.receive()));
  LANCET_CUDNN_RETURN_IF_ERROR(cudnnSetStream(context->cudnn(), context->stream()));
  LANCET_ASSIGN_OR_RETURN(context->workspace_, DeviceArray<uint8_t>::Create(kWorkspaceBytes));
  return context;
}

int64_t CudaContext::free_bytes() const {
  size_t free = 0;
  size_t total = 0;
  if (cudaMemGetInfo(&free, &total) != cudaSuccess) return 0;
  return static_cast<int64_t>(free);
}

std::string CudaContext::description() const {
  return absl::StrCat("cuda ", properties_.name, ", sm_", properties_.major, properties_.minor);
}

absl::Status CudaContext::WaitForIdle(absl::Duration timeout) const {
  return Poll([this] { return cudaStreamQuery(stream()); }, timeout);
}

template <typename Query>
absl::Status CudaContext::PollWatched(Query query, absl::Duration timeout) const {
  if (watch_ == nullptr) return Poll(query, timeout);
  const absl::Time start = absl::Now();
  const absl::Time deadline = start + timeout;
  for (;;) {
    const absl::Time now = absl::Now();
    absl::Status status = Poll(query, std::min(kWatchInterval, deadline - now), kSpin - (now - start));
    if (status.code() != absl::StatusCode::kDeadlineExceeded) {
      // Work that was abandoned ends as well.
      return status.ok() ? watch_->Failure() : status;
    }
    if (absl::Now() >= deadline) watch_->Abandon(status);
    status = watch_->Check();
    if (status.ok()) continue;
    // What is enqueued ends by itself now; the next user of the stream should find it empty.
    WaitForIdle(kAbandonTimeout).IgnoreError();
    return status;
  }
}

absl::Status CudaContext::Wait(absl::Duration timeout) const {
  return PollWatched([this] { return cudaStreamQuery(stream()); }, timeout);
}

absl::Status CudaContext::WaitFor(cudaEvent_t event, absl::Duration timeout) const {
  return PollWatched([event] { return cudaEventQuery(event); }, timeout);
}

}  // namespace lancet
