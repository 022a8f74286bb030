#include "coordinator/schedule/scheduler.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "coordinator/schedule/queue.h"

namespace lancet {
namespace {

template <typename... Parts>
absl::Status NoRoom(const Parts&... parts) {
  return absl::FailedPreconditionError(absl::StrCat(parts...));
}

bool IsHeavy(const Work& work) {
  switch (work.kind) {
    case WorkKind::kEncodeVision:
    case WorkKind::kEncodeLatents:
    case WorkKind::kDecode:
      return true;
    case WorkKind::kDenoise:
      return work.preview == PreviewMethod::kVae;
    case WorkKind::kPrefill:
    case WorkKind::kAnswer:
      break;
  }
  return false;
}

// Packed rows of the piece whose turn it is, as a whole and the least that it can be cut to.
struct PieceRows {
  int64_t whole = 0;
  int64_t least = 0;
};

PieceRows RowsOf(const RequestState& request, const Work& work) {
  switch (work.kind) {
    case WorkKind::kPrefill: {
      const RequestShape::Block& block = request.shape.blocks[work.index];
      const int64_t whole = (block.rows - work.begin) * block.caches;
      return {whole, block.divisible ? std::min<int64_t>(whole, block.caches) : whole};
    }
    case WorkKind::kDenoise:
      return {request.shape.step_rows, request.shape.step_rows};
    case WorkKind::kAnswer:
      return {1, 1};
    case WorkKind::kEncodeVision:
    case WorkKind::kEncodeLatents:
    case WorkKind::kDecode:
      break;
  }
  return {};
}

// Fills one iteration.
class Filler {
 public:
  Filler(int64_t budget, absl::Time now) : budget_(budget), now_(now), left_(budget) {}

  // Adds the next piece of the request, cut to the rows that are left; false if it does not fit.
  bool Add(const RequestState& request) {
    Work work = request.NextWork();
    const bool heavy = IsHeavy(work);
    if (heavy && has_heavy_) return false;
    const PieceRows rows = RowsOf(request, work);
    if (rows.least > left_) return false;
    int64_t taken = rows.whole;
    if (taken > left_) {
      const int32_t caches = request.shape.blocks[work.index].caches;
      work.count = static_cast<int32_t>(left_ / caches);
      taken = int64_t{work.count} * caches;
    } else if (work.begin > 0) {
      work.count = static_cast<int32_t>(request.shape.blocks[work.index].rows - work.begin);
    }
    work.snapshot = work.kind == WorkKind::kDenoise && request.SnapshotDue(work.index, now_);
    left_ -= taken;
    has_heavy_ = has_heavy_ || heavy;
    work_.push_back(work);
    return true;
  }

  std::vector<Work> Take() { return std::move(work_); }
  int64_t rows() const { return budget_ - left_; }

 private:
  const int64_t budget_;
  const absl::Time now_;
  int64_t left_;
  bool has_heavy_ = false;
  std::vector<Work> work_;
};

}  // namespace

absl::Status CheckFits(const RequestShape& shape, const GroupLimits& limits) {
  if (shape.encodes_vision && !limits.has_vision) {
    return NoRoom("image: this model has no vision tower, so it neither edits nor describes pictures");
  }
  if (shape.num_latents > limits.max_latents) {
    return NoRoom("the picture needs ", shape.num_latents,
                  " latents (16 x 16 pixels each), but no worker group has room for more than ",
                  limits.max_latents);
  }
  if (shape.num_patches > limits.max_patches) {
    return NoRoom("image: needs ", shape.num_patches,
                  " vision patches (14 x 14 pixels each), but no worker group has room for more than ",
                  limits.max_patches);
  }
  if (shape.cache_tokens > limits.cache_tokens) {
    return NoRoom("the request needs ", shape.cache_tokens,
                  " tokens of cache, but no worker group has memory for more than ", limits.cache_tokens);
  }
  if (shape.largest_piece() > limits.max_rows) {
    return NoRoom("the request needs ", shape.largest_piece(),
                  " rows in one pass, but no worker group takes more than ", limits.max_rows);
  }
  return absl::OkStatus();
}

Iteration PickIteration(const GroupState& group, absl::Time now, absl::Duration ageing) {
  std::vector<const RequestState*> answers;
  std::vector<const RequestState*> others;
  for (const RequestState* request : group.running) {
    if (request->all_issued()) continue;
    (request->NextWork().kind == WorkKind::kAnswer ? answers : others).push_back(request);
  }
  const auto before = [&](const RequestState* a, const RequestState* b) {
    return GoesBefore(*a, *b, now, ageing);
  };
  std::sort(answers.begin(), answers.end(), before);
  std::sort(others.begin(), others.end(), before);

  Filler filler(group.limits.max_rows, now);
  const auto num_answers = static_cast<int64_t>(answers.size());
  Iteration iteration;
  // The first in order goes ahead of the tokens if it cannot go beside them.
  bool first_is_in = false;
  if (!others.empty() && !group.tokens_left_out) {
    const PieceRows rows = RowsOf(*others.front(), others.front()->NextWork());
    if (rows.least + num_answers > group.limits.max_rows) first_is_in = filler.Add(*others.front());
  }
  for (const RequestState* request : answers) {
    if (!filler.Add(*request)) iteration.tokens_left_out = true;
  }
  for (size_t i = first_is_in ? 1 : 0; i < others.size(); ++i) filler.Add(*others[i]);
  iteration.rows = filler.rows();
  iteration.work = filler.Take();
  return iteration;
}

}  // namespace lancet
