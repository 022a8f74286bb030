// What a group does next: a pure function of queue, clock and the group's state. No threads, no RPC, no
// memory.
//
// Running requests take turns, one piece of work each; a request has a place on the group from its first
// piece of work to its last. A free place goes to the first in the queue's order.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "common/request_plan.h"
#include "coordinator/schedule/request_state.h"

namespace lancet {

struct GroupState {
  std::vector<const RequestState*> running;
  uint64_t last_turn = 0;   // RequestState::turn of the request served last; 0 at first
  int max_running = 4;      // places
  int64_t max_latents = 0;  // the largest picture the group has scratch for
};

// Waiting requests that get a place now. `waiting` is in the queue's order; what is late or too large is
// passed over.
std::vector<uint64_t> PickToStart(absl::Span<const RequestState* const> waiting, const GroupState& group,
                                  absl::Time now);

// The next piece of work, or none if everything was handed out already. Goes round: the running request whose
// turn comes after `last_turn`.
std::optional<Work> PickWork(const GroupState& group);

}  // namespace lancet
