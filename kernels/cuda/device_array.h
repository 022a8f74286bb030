// Owned memory on a GPU.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "common/status_macros.h"
#include "kernels/cuda/cuda_status.h"

namespace lancet {

// `size` elements of T, 256-byte aligned, not initialised. Copies are asynchronous on the given stream; host
// memory must stay until the stream has passed them.
template <typename T>
class DeviceArray {
 public:
  DeviceArray() = default;
  // ResourceExhausted if device memory is out. size == 0 gives an empty array.
  static absl::StatusOr<DeviceArray> Create(int64_t size) {
    DeviceArray array;
    if (size < 0) return absl::InvalidArgumentError(absl::StrCat("device array of ", size, " elements"));
    if (size > 0) {
      void* memory = nullptr;
      LANCET_CUDA_RETURN_IF_ERROR(cudaMalloc(&memory, static_cast<size_t>(size) * sizeof(T)));
      array.data_ = static_cast<T*>(memory);
      array.size_ = size;
    }
    return array;
  }
  static absl::StatusOr<DeviceArray> CopyOf(absl::Span<const T> host, cudaStream_t stream) {
    LANCET_ASSIGN_OR_RETURN(DeviceArray array, Create(static_cast<int64_t>(host.size())));
    LANCET_RETURN_IF_ERROR(array.CopyFrom(host, stream));
    return array;
  }
  DeviceArray(DeviceArray&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  DeviceArray& operator=(DeviceArray&& other) noexcept {
    if (this != &other) {
      cudaFree(data_);
      data_ = std::exchange(other.data_, nullptr);
      size_ = std::exchange(other.size_, 0);
    }
    return *this;
  }
  ~DeviceArray() { cudaFree(data_); }

  T* data() const { return data_; }
  int64_t size() const { return size_; }
  int64_t bytes() const { return size_ * static_cast<int64_t>(sizeof(T)); }

  // The first host.size() elements. InvalidArgument if there are more than size().
  absl::Status CopyFrom(absl::Span<const T> host, cudaStream_t stream) {
    LANCET_RETURN_IF_ERROR(CheckFits(host.size()));
    if (host.empty()) return absl::OkStatus();
    return CudaStatus(
        cudaMemcpyAsync(data_, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice, stream),
        "cudaMemcpyAsync to device");
  }
  absl::Status CopyTo(absl::Span<T> host, cudaStream_t stream) const {
    LANCET_RETURN_IF_ERROR(CheckFits(host.size()));
    if (host.empty()) return absl::OkStatus();
    return CudaStatus(
        cudaMemcpyAsync(host.data(), data_, host.size() * sizeof(T), cudaMemcpyDeviceToHost, stream),
        "cudaMemcpyAsync to host");
  }

 private:
  absl::Status CheckFits(size_t count) const {
    if (static_cast<int64_t>(count) <= size_) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("copy of ", count, " elements; the array holds ", size_));
  }

  T* data_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace lancet
