#include "coordinator/schedule/queue.h"

#include <algorithm>
#include <tuple>

#include "absl/strings/str_cat.h"

namespace lancet {
namespace {

int64_t Level(const RequestState& request, absl::Time now, absl::Duration ageing) {
  absl::Duration rest;
  const int64_t aged = absl::IDivDuration(now - request.arrival, ageing, &rest);
  return static_cast<int64_t>(request.priority) + std::max<int64_t>(aged, 0);
}

}  // namespace

bool GoesBefore(const RequestState& a, const RequestState& b, absl::Time now, absl::Duration ageing) {
  // Levels are compared the other way round: higher goes first.
  return std::make_tuple(Level(b, now, ageing), a.deadline, a.arrival, a.id) <
         std::make_tuple(Level(a, now, ageing), b.deadline, b.arrival, b.id);
}

absl::Status RequestQueue::Push(const RequestState* request) {
  if (waiting_.size() >= capacity_) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the queue is full: ", waiting_.size(), " requests wait, the limit is ", capacity_));
  }
  waiting_.push_back(request);
  return absl::OkStatus();
}

bool RequestQueue::Remove(uint64_t id) {
  return std::erase_if(waiting_, [id](const RequestState* request) { return request->id == id; }) > 0;
}

std::vector<const RequestState*> RequestQueue::InOrder(absl::Time now) const {
  std::vector<const RequestState*> order = waiting_;
  std::sort(order.begin(), order.end(), [&](const RequestState* a, const RequestState* b) {
    return a->resumed != b->resumed ? a->resumed : GoesBefore(*a, *b, now, ageing_);
  });
  return order;
}

}  // namespace lancet
