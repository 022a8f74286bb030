#include "coordinator/schedule/scheduler.h"

namespace lancet {

std::vector<uint64_t> PickToStart(absl::Span<const RequestState* const> waiting, const GroupState& group,
                                  absl::Time now) {
  std::vector<uint64_t> picked;
  int places = group.max_running - static_cast<int>(group.running.size());
  for (const RequestState* request : waiting) {
    if (places <= 0) break;
    if (request->deadline <= now || request->num_latents > group.max_latents) continue;
    picked.push_back(request->id);
    --places;
  }
  return picked;
}

std::optional<Work> PickWork(const GroupState& group) {
  const RequestState* after = nullptr;  // first in turn behind last_turn
  const RequestState* first = nullptr;  // first of all, where the round begins anew
  for (const RequestState* request : group.running) {
    if (request->issued >= request->total_work()) continue;
    if (first == nullptr || request->turn < first->turn) first = request;
    if (request->turn > group.last_turn && (after == nullptr || request->turn < after->turn)) after = request;
  }
  const RequestState* next = after != nullptr ? after : first;
  if (next == nullptr) return std::nullopt;
  return next->NthWork(next->issued);
}

}  // namespace lancet
