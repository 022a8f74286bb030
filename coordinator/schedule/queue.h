// The bounded queue of waiting requests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "coordinator/schedule/request_state.h"

namespace lancet {

// Which of two waiting requests goes first: the higher priority, where every `ageing` of waiting counts as
// one level more (without a cap, so that nothing waits for ever); then the earlier deadline; then the earlier
// arrival; then the lower id.
bool GoesBefore(const RequestState& a, const RequestState& b, absl::Time now, absl::Duration ageing);

// Holds pointers; the owner of a request removes it before it goes away. Not thread-safe.
class RequestQueue {
 public:
  RequestQueue(size_t capacity, absl::Duration ageing) : capacity_(capacity), ageing_(ageing) {}

  // ResourceExhausted names the limit.
  absl::Status Push(const RequestState* request);
  // One that had left the queue and comes back: never refused, as it was let in before.
  void Restore(const RequestState* request) { waiting_.push_back(request); }
  // False if there is no such request.
  bool Remove(uint64_t id);
  // Who is next, first: those that come back, then by GoesBefore.
  std::vector<const RequestState*> InOrder(absl::Time now) const;

  size_t size() const { return waiting_.size(); }
  size_t capacity() const { return capacity_; }

 private:
  const size_t capacity_;
  const absl::Duration ageing_;
  std::vector<const RequestState*> waiting_;
};

}  // namespace lancet
