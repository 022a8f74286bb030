// What the scheduler knows about a request: who it is, when it came, what its work costs and how far that is.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "common/request_plan.h"
#include "coordinator/request/admission.h"

namespace lancet {

enum class RequestPhase : uint8_t {
  kQueued,    // waits for a place on a group
  kRunning,   // has a place: ranks hold its caches and latents
  kFinished,  // ranks have been told to drop it
};

// What a plan costs, from its shape alone (plan_rows.h).
struct RequestShape {
  struct Block {
    int64_t rows = 0;
    int32_t caches = 1;     // packed rows per row: 2 where both caches of a guided picture get their own
    bool divisible = true;  // text may be prefilled in parts, visual blocks not
  };

  bool encodes_vision = false;
  bool encodes_latents = false;
  std::vector<Block> blocks;
  int64_t step_rows = 0;       // packed rows of one denoising step
  int32_t num_steps = 0;       // 0 for an answer
  int32_t max_new_tokens = 0;  // 0 for a picture
  int64_t num_latents = 0;     // of the target or the condition, whichever has more
  int64_t num_patches = 0;     // of the vision image
  int64_t cache_tokens = 0;

  bool answers() const { return max_new_tokens > 0; }
  // Encoders and blocks. A block that is prefilled in parts counts once.
  int64_t prefix_pieces() const {
    return (encodes_vision ? 1 : 0) + (encodes_latents ? 1 : 0) + static_cast<int64_t>(blocks.size());
  }
  // Those, then steps and the decode, or tokens.
  int64_t num_pieces() const { return prefix_pieces() + (answers() ? max_new_tokens : num_steps + 1); }
  // Packed rows of the largest piece that cannot be divided.
  int64_t largest_piece() const;
};

RequestShape ShapeOf(const RequestPlan& plan);

// The work of a request is a fixed sequence: kEncodeVision, kEncodeLatents (those it needs), prefix blocks in
// order, then denoising steps and kDecode, or kAnswer. A request whose group was lost begins again: with all
// of its prefix, and then behind the steps or tokens that are known (Restart).
struct RequestState {
  // Constant, but for Restart.
  uint64_t id = 0;
  Priority priority = Priority::kNormal;
  absl::Time arrival;
  absl::Time deadline = absl::InfiniteFuture();
  RequestShape shape;
  int32_t preview_every = 0;  // steps; 0: no previews
  PreviewMethod preview_method = PreviewMethod::kNone;

  int32_t snapshot_every = 0;                              // steps; 0: no snapshots
  absl::Duration snapshot_age = absl::InfiniteDuration();  // after this long the next step brings one
  // Of the groups that may serve it; empty: any. Set when it starts, since others would draw other bytes.
  std::string numerics{};

  RequestPhase phase = RequestPhase::kQueued;
  int64_t issued = 0;       // whole pieces handed to the group
  int64_t issued_rows = 0;  // of the block whose turn it is, if it is prefilled in parts
  int64_t completed = 0;    // whole pieces the group reported done
  int32_t steps_done = 0;   // denoising steps reported done, before the last restart included
  absl::Time snapshot_asked = absl::InfiniteFuture();  // the last one; the start before that

  int32_t first_step = 0;    // of this run: done before it
  int32_t previewed = 0;     // the last step that there was a preview of
  bool resumed = false;      // goes to the head of the queue
  int64_t trial_pieces = 0;  // see suspect()

  int64_t num_pieces() const { return shape.num_pieces() - first_step; }
  bool all_issued() const { return issued >= num_pieces(); }
  int64_t pieces_left() const { return num_pieces() - completed; }
  // Packed rows of the pieces that are not completed.
  int64_t rows_left() const;
  // Its group died while it ran, perhaps because of it, and it has not got past the piece that it was at.
  bool suspect() const { return completed < trial_pieces; }
  // Whether step `index` is to bring a snapshot.
  bool SnapshotDue(int32_t index, absl::Time now) const;

  // Begins again, at the head of the queue. `next_shape` is that of the plan to come; `kept` the steps or
  // tokens of the last run that need not be computed again.
  //   blamed  whether it becomes a suspect
  void Restart(RequestShape next_shape, int32_t kept, bool blamed);

  // The piece whose turn it is; the rest of the block where that is prefilled in parts. Not all_issued().
  Work NextWork() const;
  // Notes that `work`, made by NextWork and perhaps cut short, was handed out.
  void Issue(const Work& work);
  // Notes that the group reported `work` done.
  void Complete(const Work& work);
};

}  // namespace lancet
