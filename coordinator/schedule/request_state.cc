#include "coordinator/schedule/request_state.h"

#include <algorithm>
#include <utility>

#include "common/model_config.h"
#include "common/plan_rows.h"
#include "common/vision_config.h"

namespace lancet {

int64_t RequestShape::largest_piece() const {
  int64_t rows = std::max<int64_t>(step_rows, 1);
  for (const Block& block : blocks)
    rows = std::max(rows, block.divisible ? block.caches : block.rows * block.caches);
  return rows;
}

RequestShape ShapeOf(const RequestPlan& plan) {
  const CacheLayout layout = MakeCacheLayout(plan);
  RequestShape shape;
  shape.encodes_vision = plan.vision_image.has_value();
  shape.encodes_latents = plan.condition_image.has_value();
  for (int32_t i = 0; i < static_cast<int32_t>(plan.prefix.size()); ++i) {
    const PrefixBlock& block = plan.prefix[i];
    const Work one_row{.request_id = 0,
                       .kind = WorkKind::kPrefill,
                       .index = i,
                       .preview = PreviewMethod::kNone,
                       .begin = 0,
                       .count = 1};
    shape.blocks.push_back({block.rows(), static_cast<int32_t>(PassRows(plan, layout, one_row)),
                            block.kind == PrefixKind::kText});
  }
  if (plan.draws()) {
    shape.num_steps = plan.sampler.num_steps;
    shape.step_rows = PassRows(plan, layout, {.request_id = 0, .kind = WorkKind::kDenoise});
  }
  if (plan.answer.has_value()) shape.max_new_tokens = plan.answer->max_new_tokens;
  shape.num_latents = plan.target.num_latents();
  if (plan.condition_image.has_value()) {
    const RgbImage& image = *plan.condition_image;
    shape.num_latents = std::max<int64_t>(
        shape.num_latents, int64_t{image.width / kPixelsPerLatent} * (image.height / kPixelsPerLatent));
  }
  if (plan.vision_image.has_value()) {
    shape.num_patches =
        int64_t{plan.vision_image->width / kVisionPatchSide} * (plan.vision_image->height / kVisionPatchSide);
  }
  shape.cache_tokens = layout.tokens();
  return shape;
}

Work RequestState::NextWork() const {
  Work work{.request_id = id,
            .kind = WorkKind::kPrefill,
            .index = 0,
            .preview = PreviewMethod::kNone,
            .begin = 0,
            .count = 0};
  int64_t n = issued;
  for (const auto& [needed, kind] : {std::pair(shape.encodes_vision, WorkKind::kEncodeVision),
                                     std::pair(shape.encodes_latents, WorkKind::kEncodeLatents)}) {
    if (!needed) continue;
    work.kind = kind;
    if (n == 0) return work;
    --n;
  }
  const auto num_blocks = static_cast<int64_t>(shape.blocks.size());
  if (n < num_blocks) {
    work.kind = WorkKind::kPrefill;
    work.index = static_cast<int32_t>(n);
    work.begin = static_cast<int32_t>(issued_rows);
    return work;
  }
  work.index = static_cast<int32_t>(n - num_blocks) + first_step;
  if (shape.answers()) {
    work.kind = WorkKind::kAnswer;
  } else if (work.index < shape.num_steps) {
    work.kind = WorkKind::kDenoise;
    const int32_t step = work.index + 1;
    if (preview_every > 0 && step % preview_every == 0 && step > previewed) work.preview = preview_method;
  } else {
    work.kind = WorkKind::kDecode;
    work.index = 0;
  }
  return work;
}

void RequestState::Complete(const Work& work) {
  const bool part = work.kind == WorkKind::kPrefill && work.count > 0 &&
                    int64_t{work.begin} + work.count < shape.blocks[work.index].rows;
  if (!part) ++completed;
  if (work.kind == WorkKind::kDenoise) ++steps_done;
}

void RequestState::Issue(const Work& work) {
  if (work.kind == WorkKind::kPrefill && work.count > 0) {
    issued_rows = int64_t{work.begin} + work.count;
    if (issued_rows < shape.blocks[work.index].rows) return;
  }
  issued_rows = 0;
  ++issued;
}

int64_t RequestState::rows_left() const {
  const int64_t encoders = shape.prefix_pieces() - static_cast<int64_t>(shape.blocks.size());
  int64_t rows = 0;
  for (int64_t i = std::max<int64_t>(0, completed - encoders); i < static_cast<int64_t>(shape.blocks.size());
       ++i) {
    rows += shape.blocks[i].rows * shape.blocks[i].caches;
  }
  const int64_t own = std::min(pieces_left(), num_pieces() - shape.prefix_pieces());
  // The last piece of a picture is its decode, which has no rows.
  return rows + (shape.answers() ? own : std::max<int64_t>(0, own - 1) * shape.step_rows);
}

bool RequestState::SnapshotDue(int32_t index, absl::Time now) const {
  if (snapshot_every <= 0) return false;
  return (index + 1) % snapshot_every == 0 || now - snapshot_asked >= snapshot_age;
}

void RequestState::Restart(RequestShape next_shape, int32_t kept, bool blamed) {
  // What was under way when the group died is the last that was handed out.
  const int64_t own_issued = issued - shape.prefix_pieces();
  if (!next_shape.answers()) first_step += kept;
  shape = std::move(next_shape);
  if (!blamed) {
    trial_pieces = 0;
  } else if (own_issued <= 0) {
    trial_pieces = std::max<int64_t>(1, issued);
  } else {
    trial_pieces = std::min(num_pieces(), shape.prefix_pieces() + std::max<int64_t>(1, own_issued - kept));
  }
  phase = RequestPhase::kQueued;
  issued = 0;
  issued_rows = 0;
  completed = 0;
  steps_done = first_step;
  resumed = true;
}

}  // namespace lancet
