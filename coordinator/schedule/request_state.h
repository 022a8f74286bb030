// What the scheduler knows about a request: who it is, when it came, how much work it has and how far that
// is.
#pragma once

#include <cstdint>

#include "absl/time/time.h"
#include "common/request_plan.h"
#include "coordinator/request/admission.h"

namespace lancet {

enum class RequestPhase : uint8_t {
  kQueued,    // waits for a place on a group
  kRunning,   // has a place: ranks hold its caches and latents
  kFinished,  // ranks have been told to drop it
};

// The work of a request is a fixed sequence, numbered from 0: prefix blocks, then denoising steps, then the
// decode.
struct RequestState {
  // Constant.
  uint64_t id = 0;
  Priority priority = Priority::kNormal;
  absl::Time arrival;
  absl::Time deadline = absl::InfiniteFuture();
  int64_t num_latents = 0;
  int32_t num_prefix_blocks = 0;
  int32_t num_steps = 0;
  int32_t preview_every = 0;  // steps; 0: no previews
  PreviewMethod preview_method = PreviewMethod::kNone;

  RequestPhase phase = RequestPhase::kQueued;
  uint64_t turn = 0;      // position in the order in which running requests take turns
  int32_t issued = 0;     // work handed to the group
  int32_t completed = 0;  // work the group reported done; at most `issued`

  int32_t total_work() const { return num_prefix_blocks + num_steps + 1; }
  int32_t steps_done() const {
    const int32_t steps = completed - num_prefix_blocks;
    return steps < 0 ? 0 : (steps < num_steps ? steps : num_steps);
  }

  // The n-th piece of work, n < total_work().
  Work NthWork(int32_t n) const {
    Work work{.request_id = id, .kind = WorkKind::kPrefill, .index = n, .preview = PreviewMethod::kNone};
    if (n < num_prefix_blocks) return work;
    work.index = n - num_prefix_blocks;
    if (work.index == num_steps) return Work{id, WorkKind::kDecode, 0, PreviewMethod::kNone};
    work.kind = WorkKind::kDenoise;
    if (preview_every > 0 && (work.index + 1) % preview_every == 0) work.preview = preview_method;
    return work;
  }
};

}  // namespace lancet
