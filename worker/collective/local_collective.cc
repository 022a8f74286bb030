#include "worker/collective/local_collective.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace lancet {

absl::StatusOr<std::unique_ptr<SingleRankCollective>> SingleRankCollective::Create(size_t capacity_floats) {
  return std::unique_ptr<SingleRankCollective>(new SingleRankCollective(capacity_floats));
}

SingleRankCollective::SingleRankCollective(size_t capacity_floats)
    : capacity_floats_(capacity_floats),
      buffers_{std::vector<float>(capacity_floats), std::vector<float>(capacity_floats)} {}

absl::StatusOr<absl::Span<float>> SingleRankCollective::PartialSumBuffer(size_t count) {
  LANCET_RETURN_IF_ERROR(Failure());
  if (count > capacity_floats_) {
    return absl::InvalidArgumentError(absl::StrCat(
        "PartialSumBuffer: count ", count, " is above the capacity of ", capacity_floats_, " floats"));
  }
  return absl::MakeSpan(buffers_[next_].data(), count);
}

absl::StatusOr<absl::Span<const float>> SingleRankCollective::AllReduceSum(absl::Span<const float> partial,
                                                                           absl::Time /*deadline*/) {
  LANCET_RETURN_IF_ERROR(Failure());
  if (partial.size() > capacity_floats_) {
    return Fail(absl::InvalidArgumentError(absl::StrCat(
        "AllReduceSum: ", partial.size(), " floats are above the capacity of ", capacity_floats_)));
  }
  std::vector<float>& buffer = buffers_[next_];
  if (!partial.empty() && partial.data() != buffer.data()) {
    std::memmove(buffer.data(), partial.data(), partial.size() * sizeof(float));
  }
  next_ = 1 - next_;
  return absl::MakeConstSpan(buffer.data(), partial.size());
}

absl::Status SingleRankCollective::AllGather(absl::Span<const std::byte> mine, absl::Span<std::byte> all,
                                             absl::Time /*deadline*/) {
  LANCET_RETURN_IF_ERROR(Failure());
  if (all.size() != mine.size()) {
    return Fail(absl::InvalidArgumentError(
        absl::StrCat("AllGather: `all` has ", all.size(), " bytes, expected 1 rank * ", mine.size())));
  }
  if (!mine.empty() && all.data() != mine.data()) {
    std::memmove(all.data(), mine.data(), mine.size());
  }
  return absl::OkStatus();
}

absl::Status SingleRankCollective::Broadcast(absl::Span<std::byte> /*data*/, int root,
                                             absl::Time /*deadline*/) {
  LANCET_RETURN_IF_ERROR(Failure());
  if (root != 0) {
    return Fail(
        absl::InvalidArgumentError(absl::StrCat("Broadcast: root ", root, " is not in a group of 1")));
  }
  return absl::OkStatus();
}

absl::Status SingleRankCollective::Barrier(absl::Time /*deadline*/) { return Failure(); }

void SingleRankCollective::Abort(absl::Status reason) {
  Fail(reason.ok() ? absl::AbortedError("the collective was aborted") : std::move(reason)).IgnoreError();
}

absl::Status SingleRankCollective::Failure() {
  std::lock_guard<std::mutex> lock(mu_);
  return absl::Status(failure_code_, failure_message_);
}

absl::Status SingleRankCollective::Fail(const absl::Status& reason) {
  std::lock_guard<std::mutex> lock(mu_);
  if (failure_code_ == absl::StatusCode::kOk) {
    failure_code_ = reason.code();
    failure_message_ = std::string(reason.message());
  }
  return absl::Status(failure_code_, failure_message_);
}

}  // namespace lancet
