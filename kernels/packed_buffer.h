// Memory for packed weights.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"

namespace lancet {

// Owns bytes that are aligned to a cache line and not initialised, so that the threads that fill them are the
// first to touch them. From 2 MiB on they are aligned to that, and the system is asked for huge pages: a
// product walks through all of them, and page by page of 4 KiB would miss the TLB at each.
class PackedBuffer {
 public:
  // ResourceExhausted if memory is out.
  static absl::StatusOr<PackedBuffer> Create(size_t bytes);

  PackedBuffer() = default;
  PackedBuffer(PackedBuffer&& other) noexcept;
  PackedBuffer& operator=(PackedBuffer&& other) noexcept;

  uint8_t* data() { return data_.get(); }
  const uint8_t* data() const { return data_.get(); }
  size_t size() const { return size_; }

 private:
  struct FreeDeleter {
    void operator()(uint8_t* p) const;
  };
  std::unique_ptr<uint8_t[], FreeDeleter> data_;
  size_t size_ = 0;
};

}  // namespace lancet
