// Plans of requests that were begun on a group which is gone.
#pragma once

#include <cstdint>

#include "absl/types/span.h"
#include "common/request_plan.h"

namespace lancet {

// `plan`, of an answer, for a group that goes on behind `tokens`, the first ones picked: what was fed for
// them is one more block of the prefix, and the last of them is fed next. The tokens that follow are those of
// the undisturbed answer, to the bit. `tokens` are fewer than plan.answer->max_new_tokens; without any the
// plan stays as it is.
RequestPlan ResumeAnswer(const RequestPlan& plan, absl::Span<const int32_t> tokens);

// Whether a snapshot belongs to a plan that draws: step, sizes and what the solver keeps.
bool SnapshotFits(const RequestPlan& plan, const LatentSnapshot& snapshot);

}  // namespace lancet
