#include "coordinator/schedule/placement.h"

#include <algorithm>
#include <limits>
#include <optional>

namespace lancet {
namespace {

// What is free on a group while requests are being placed.
class Room {
 public:
  Room(const GroupState& group, const IterationCost& cost) : group_(group), cost_(cost) {
    // Each may come to need a row for its token.
    const int64_t most = std::min<int64_t>(group.limits.max_requests, group.limits.max_rows);
    places_ = most - static_cast<int64_t>(group.running.size());
    tokens_ = group.limits.cache_tokens;
    for (const RequestState* request : group.running) {
      tokens_ -= request->shape.cache_tokens;
      has_suspect_ = has_suspect_ || request->suspect();
    }
  }

  bool Has(const RequestState& request) const {
    return !kept_ && places_ > 0 && request.shape.cache_tokens <= tokens_ &&
           !(request.suspect() && has_suspect_);
  }
  void Take(const RequestState& request) {
    --places_;
    tokens_ -= request.shape.cache_tokens;
    has_suspect_ = has_suspect_ || request.suspect();
    taken_.push_back(&request);
  }
  // Nothing starts here any more.
  bool full() const { return kept_ || places_ <= 0; }
  // For one that has no room yet.
  void Keep() { kept_ = true; }
  void WaitFor() { ++waiting_; }

  // Until a request that starts now would be done; if there is no place, behind those that wait for one
  // already.
  double SecondsToFinish(const RequestState& request) const {
    GroupState group{.running = group_.running, .limits = group_.limits};
    group.running.insert(group.running.end(), taken_.begin(), taken_.end());
    return lancet::SecondsToFinish(request, group, cost_) + (Has(request) ? 0 : SecondsToPlace(group));
  }

 private:
  double SecondsToPlace(const GroupState& group) const {
    std::vector<double> left;
    for (const RequestState* running : group.running)
      left.push_back(lancet::SecondsToFinish(*running, {}, cost_));
    if (left.empty()) return 0;
    std::sort(left.begin(), left.end());
    return left[std::min(waiting_, left.size() - 1)];
  }

  const GroupState& group_;
  const IterationCost cost_;
  int64_t places_ = 0;
  int64_t tokens_ = 0;
  bool has_suspect_ = false;
  bool kept_ = false;
  size_t waiting_ = 0;
  std::vector<const RequestState*> taken_;
};

// What groups without a measurement are taken to cost: the mean of the others; before any, rows alone count.
IterationCost CostOfUnknown(absl::Span<const GroupState> groups) {
  IterationCost sum;
  int measured = 0;
  for (const GroupState& group : groups) {
    if (!group.cost.has_value()) continue;
    sum.base_seconds += group.cost->base_seconds;
    sum.row_seconds += group.cost->row_seconds;
    ++measured;
  }
  if (measured == 0) return {0, 1};
  return {sum.base_seconds / measured, sum.row_seconds / measured};
}

}  // namespace

bool MayServe(const RequestState& request, const GroupState& group) {
  if (group.leaving || !CheckFits(request.shape, group.limits).ok()) return false;
  return request.numerics.empty() || request.numerics == group.numerics;
}

double SecondsToFinish(const RequestState& request, const GroupState& group, const IterationCost& cost) {
  const auto pieces = static_cast<double>(request.pieces_left());
  double rows = static_cast<double>(request.rows_left());
  for (const RequestState* other : group.running) {
    const auto left = static_cast<double>(std::max<int64_t>(other->pieces_left(), 1));
    rows += std::min(left, pieces) * static_cast<double>(other->rows_left()) / left;
  }
  return cost.Seconds(pieces, rows);
}

std::vector<Placement> PlaceWaiting(absl::Span<const RequestState* const> waiting,
                                    absl::Span<const GroupState> groups, absl::Time now,
                                    absl::Duration patience) {
  const IterationCost unknown = CostOfUnknown(groups);
  std::vector<Room> rooms;
  for (const GroupState& group : groups) rooms.emplace_back(group, group.cost.value_or(unknown));
  std::vector<Placement> placed;
  for (const RequestState* request : waiting) {
    if (std::all_of(rooms.begin(), rooms.end(), [](const Room& room) { return room.full(); })) break;
    if (request->deadline <= now) continue;
    std::optional<size_t> best;
    double best_seconds = std::numeric_limits<double>::infinity();
    for (size_t g = 0; g < groups.size(); ++g) {
      if (!MayServe(*request, groups[g])) continue;
      const double seconds = rooms[g].SecondsToFinish(*request);
      if (seconds >= best_seconds) continue;
      best = g;
      best_seconds = seconds;
    }
    if (!best.has_value()) continue;
    Room& room = rooms[*best];
    if (room.Has(*request)) {
      room.Take(*request);
      placed.push_back({request->id, *best});
    } else if (request->resumed || now - request->arrival >= patience) {
      // A suspect waits for the one on trial, which keeps nobody else from starting.
      if (!request->suspect()) room.Keep();
    } else {
      room.WaitFor();
    }
  }
  return placed;
}

}  // namespace lancet
