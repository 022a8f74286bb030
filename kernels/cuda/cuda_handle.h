// One owner for the handles of C libraries.
#pragma once

#include <utility>

namespace lancet {

// Destroys a handle with `Destroy`, whose result is dropped: a destructor has nobody to tell.
template <typename Handle, auto Destroy>
class CudaHandle {
 public:
  CudaHandle() = default;
  explicit CudaHandle(Handle handle) : handle_(handle) {}
  CudaHandle(CudaHandle&& other) noexcept : handle_(std::exchange(other.handle_, Handle{})) {}
  CudaHandle& operator=(CudaHandle&& other) noexcept {
    if (this != &other) {
      Reset();
      handle_ = std::exchange(other.handle_, Handle{});
    }
    return *this;
  }
  ~CudaHandle() { Reset(); }

  Handle get() const { return handle_; }
  // For functions that create one: the old handle is destroyed first.
  Handle* receive() {
    Reset();
    return &handle_;
  }

 private:
  void Reset() {
    if (handle_ != Handle{}) Destroy(handle_);
    handle_ = Handle{};
  }
  Handle handle_{};
};

}  // namespace lancet
