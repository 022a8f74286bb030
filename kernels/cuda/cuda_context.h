// What CUDA ops run on: a device, its stream, the library handles and their workspace. One per rank.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <cudnn.h>

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kernels/cuda/cuda_handle.h"
#include "kernels/cuda/device_array.h"
#include "kernels/cuda/stream_watch.h"

namespace lancet {

// Devices that this process can use; 0 without a driver.
int CudaDeviceCount();

// Not thread-safe: one thread enqueues. Everything is ordered on stream().
class CudaContext {
 public:
  // Unavailable without a device or driver, InvalidArgument for an ordinal that does not exist, Unimplemented
  // for compute capabilities below 8.0.
  static absl::StatusOr<std::unique_ptr<CudaContext>> Create(int ordinal);

  cudaStream_t stream() const { return stream_.get(); }
  cublasLtHandle_t cublas() const { return cublas_.get(); }
  cudnnHandle_t cudnn() const { return cudnn_.get(); }
  const cudaDeviceProp& properties() const { return properties_; }
  int multiprocessors() const { return properties_.multiProcessorCount; }
  int64_t free_bytes() const;
  // "cuda NVIDIA H100 80GB HBM3, sm_90".
  std::string description() const;

  // Scratch of library calls, which are ordered by the stream and so may share it.
  static constexpr int64_t kWorkspaceBytes = int64_t{64} << 20;
  void* workspace() const { return workspace_.data(); }

  // Waits for everything enqueued so far, asking in short intervals. DeadlineExceeded after `timeout`; the
  // work is still running then, and the context is of no further use. Internal if something enqueued earlier
  // failed. With a watch, what that finds wrong; the work has ended then, or is at least a second late with
  // that.
  absl::Status Wait(absl::Duration timeout) const;
  // The same, whatever a watch finds.
  absl::Status WaitForIdle(absl::Duration timeout) const;
  // Like Wait, for an event recorded on any stream.
  absl::Status WaitFor(cudaEvent_t event, absl::Duration timeout) const;
  // Asked during Wait and WaitFor from now on; null: nobody.
  void set_watch(StreamWatch* watch) { watch_ = watch; }

 private:
  CudaContext() = default;
  template <typename Query>
  absl::Status PollWatched(Query query, absl::Duration timeout) const;

  StreamWatch* watch_ = nullptr;
  cudaDeviceProp properties_{};
  CudaHandle<cudaStream_t, cudaStreamDestroy> stream_;
  CudaHandle<cublasLtHandle_t, cublasLtDestroy> cublas_;
  CudaHandle<cudnnHandle_t, cudnnDestroy> cudnn_;
  DeviceArray<uint8_t> workspace_;
};

}  // namespace lancet
