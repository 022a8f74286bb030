// Owned page-locked memory of the host: copies from and to it are asynchronous and need no staging.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "kernels/cuda/cuda_status.h"

namespace lancet {

// `size` elements of T, not initialised.
template <typename T>
class HostArray {
 public:
  HostArray() = default;
  // ResourceExhausted if memory is out. size == 0 gives an empty array.
  static absl::StatusOr<HostArray> Create(int64_t size) {
    HostArray array;
    if (size < 0) return absl::InvalidArgumentError(absl::StrCat("host array of ", size, " elements"));
    if (size > 0) {
      void* memory = nullptr;
      LANCET_CUDA_RETURN_IF_ERROR(
          cudaHostAlloc(&memory, static_cast<size_t>(size) * sizeof(T), cudaHostAllocDefault));
      array.data_ = static_cast<T*>(memory);
      array.size_ = size;
    }
    return array;
  }
  HostArray(HostArray&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  HostArray& operator=(HostArray&& other) noexcept {
    if (this != &other) {
      Reset();
      data_ = std::exchange(other.data_, nullptr);
      size_ = std::exchange(other.size_, 0);
    }
    return *this;
  }
  ~HostArray() { Reset(); }

  T* data() const { return data_; }
  int64_t size() const { return size_; }

 private:
  void Reset() {
    if (data_ != nullptr) cudaFreeHost(data_);
  }
  T* data_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace lancet
