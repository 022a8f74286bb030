// Which waiting request starts on which group: a pure function of queue, clock and the groups' states.
//
// Requests are placed in the queue's order, each where it will be done first by the groups' measured costs.
// If that is a group that is full just now, it waits for it. A request that has no room anywhere is overtaken
// by those behind it until it has waited for `patience`, or at once if it was lost with a group; then the
// best group for it takes nothing else before, whatever that leaves idle.
//
// A request that is bound to a kind of group (RequestState::numerics) goes to those alone. Of requests under
// suspicion a group has one at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "coordinator/schedule/request_state.h"
#include "coordinator/schedule/scheduler.h"

namespace lancet {

struct Placement {
  uint64_t request_id = 0;
  size_t group = 0;  // index into the groups

  friend bool operator==(const Placement&, const Placement&) = default;
};

// Whether the group may serve the request at all: it takes new work, its numerics are those the request is
// bound to, and an idle group of its limits would have room.
bool MayServe(const RequestState& request, const GroupState& group);

// Seconds until a request that starts now on the group is done: every iteration advances each request by one
// piece.
double SecondsToFinish(const RequestState& request, const GroupState& group, const IterationCost& cost);

// `waiting` is in the queue's order; what is late is passed over.
std::vector<Placement> PlaceWaiting(absl::Span<const RequestState* const> waiting,
                                    absl::Span<const GroupState> groups, absl::Time now,
                                    absl::Duration patience);

}  // namespace lancet
