#include "kernels/packed_buffer.h"

#include <sys/mman.h>

#include <cstdlib>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace lancet {
namespace {

constexpr size_t kLine = 64;
constexpr size_t kHugePage = size_t{2} << 20;

}  // namespace

void PackedBuffer::FreeDeleter::operator()(uint8_t* p) const { std::free(p); }

PackedBuffer::PackedBuffer(PackedBuffer&& other) noexcept
    : data_(std::move(other.data_)), size_(std::exchange(other.size_, 0)) {}

PackedBuffer& PackedBuffer::operator=(PackedBuffer&& other) noexcept {
  data_ = std::move(other.data_);
  size_ = std::exchange(other.size_, 0);
  return *this;
}

absl::StatusOr<PackedBuffer> PackedBuffer::Create(size_t bytes) {
  PackedBuffer buffer;
  if (bytes == 0) return buffer;
  const size_t alignment = bytes >= kHugePage ? kHugePage : kLine;
  const size_t whole = (bytes + kLine - 1) / kLine * kLine;
  void* memory = nullptr;
  if (whole < bytes || posix_memalign(&memory, alignment, whole) != 0) {
    return absl::ResourceExhaustedError(absl::StrCat("no memory for ", bytes, " bytes of packed weights"));
  }
  buffer.data_.reset(static_cast<uint8_t*>(memory));
  buffer.size_ = bytes;
  // Whole huge pages only: the tail would cost up to 2 MiB that no weight uses. A kernel that refuses loses
  // speed, not correctness.
  if (bytes >= kHugePage) (void)madvise(memory, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
  return buffer;
}

}  // namespace lancet
