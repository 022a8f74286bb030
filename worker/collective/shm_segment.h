// The memory behind ShmCollective: a mapping, by name for processes or without one for threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "worker/collective/shm_layout.h"

namespace lancet {

// Unmaps when it goes; the name is not its business (see Unlink). Accessors are thread-safe, what they lead
// to follows the rules of shm_layout.h.
class ShmSegment {
 public:
  // A new segment under `name`, readable and writable by this user alone, zeroed, with its memory reserved
  // and its header filled in. AlreadyExists, ResourceExhausted.
  static absl::StatusOr<std::shared_ptr<ShmSegment>> CreateNamed(const std::string& name, int world_size,
                                                                 size_t capacity_floats);
  // Waits for the segment to appear and to be ready. DeadlineExceeded; FailedPrecondition if it is not of
  // this shape, version or user.
  static absl::StatusOr<std::shared_ptr<ShmSegment>> OpenNamed(const std::string& name, int world_size,
                                                               size_t capacity_floats, absl::Time deadline);
  static absl::StatusOr<std::shared_ptr<ShmSegment>> CreateAnonymous(int world_size, size_t capacity_floats);
  // Removes the name, if it is still there; mappings live on.
  static void Unlink(const std::string& name);

  ~ShmSegment();
  ShmSegment(const ShmSegment&) = delete;
  ShmSegment& operator=(const ShmSegment&) = delete;

  int world_size() const { return world_size_; }
  size_t capacity_floats() const { return capacity_floats_; }
  ShmHeader& header() const;
  ShmRankSlot& slot(int rank) const;
  absl::Span<float> partial(int rank) const;  // [capacity_floats] f32
  absl::Span<float> result() const;           // [capacity_floats] f32
  // `parity` is 0 or 1; kShmExchangeBytes long.
  absl::Span<std::byte> exchange(int rank, uint32_t parity) const;

 private:
  ShmSegment(std::byte* base, int world_size, size_t capacity_floats);
  void InitializeHeader();

  std::byte* const base_;
  const int world_size_;
  const size_t capacity_floats_;
  const ShmLayout layout_;
};

}  // namespace lancet
