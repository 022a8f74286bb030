// What a group does next: pure functions of the clock and the group's state. No threads, no RPC, no memory.
// placement.h says which group a request goes to.
//
// A request has a place on the group from its first piece of work to its last. An iteration has at most one
// piece of each running request, within a budget of packed rows:
//   1. the next token of every running answer;
//   2. pieces of other requests in the queue's order (priority with ageing, deadline, arrival), each taken if
//   it
//      fits what is left; text is cut to what is left. At most one piece per iteration is heavy work outside
//      the trunk (an encoder, a decode to pixels, a preview by the autoencoder), so that tokens never wait
//      for several.
// The first in order always gets on: should it fit only without the tokens, they are left out of this
// iteration, but never of two in a row.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/request_plan.h"
#include "coordinator/schedule/iteration_cost.h"
#include "coordinator/schedule/request_state.h"

namespace lancet {

// What every rank of a group has room for.
struct GroupLimits {
  int32_t max_requests = 0;
  int64_t max_rows = 0;      // packed rows of an iteration
  int64_t cache_tokens = 0;  // over all requests
  int64_t max_latents = 0;   // of one picture
  int64_t max_patches = 0;   // of one vision image
  bool has_vision = false;
};

struct GroupState {
  std::vector<const RequestState*> running{};
  GroupLimits limits{};
  bool tokens_left_out = false;  // by the iteration before
  // For placement.h.
  bool leaving = false;                 // takes nothing new
  std::string numerics{};               // groups that compute alike, to the bit, have the same
  std::optional<IterationCost> cost{};  // as measured
};

// Whether the request could run on an idle group of these limits. FailedPrecondition names what it needs and
// the limit.
absl::Status CheckFits(const RequestShape& shape, const GroupLimits& limits);

struct Iteration {
  std::vector<Work> work;        // empty if everything was handed out already
  bool tokens_left_out = false;  // for GroupState of the next one
  int64_t rows = 0;              // packed
};

// `ageing` as in queue.h.
Iteration PickIteration(const GroupState& group, absl::Time now, absl::Duration ageing);

}  // namespace lancet
