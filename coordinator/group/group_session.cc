#include "coordinator/group/group_session.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace lancet {

GroupSession::GroupSession(Options options, const std::vector<RankLink*>& links)
    : options_(std::move(options)) {
  for (RankLink* link : links) ranks_.push_back(Rank{.link = link});
}

void GroupSession::Start(absl::Time now) {
  started_ = now;
  last_finished_ = now;
  const FormMessage form{options_.epoch, options_.segment, static_cast<int32_t>(ranks_.size()),
                         options_.collective_addresses};
  for (const Rank& rank : ranks_) rank.link->Send(form);
}

bool GroupSession::CanIterate() const {
  return serving() && iterations_in_flight_ < options_.max_iterations && CanSend(1);
}

bool GroupSession::CanSend(int count) const {
  return serving() && static_cast<int>(pending_.size()) + count <= options_.max_commands;
}

void GroupSession::SendAll(decltype(CommandMessage::command) command, absl::Duration patience,
                           absl::Time now) {
  pending_.push_back(Pending{.number = ++last_number_,
                             .sent = now,
                             .patience = std::min(patience, options_.iteration_timeout),
                             .is_iteration = false,
                             .work = {},
                             .results = {}});
  if (const auto* iterate = std::get_if<IterateCommand>(&command)) {
    pending_.back().is_iteration = true;
    pending_.back().work = iterate->work;
    ++iterations_in_flight_;
  }
  const CommandMessage message{options_.epoch, last_number_, std::move(command)};
  for (const Rank& rank : ranks_) rank.link->Send(message);
}

void GroupSession::Admit(RequestPlan plan, absl::Time now) {
  SendAll(AdmitCommand{std::move(plan)}, options_.iteration_timeout, now);
}

void GroupSession::Iterate(std::vector<Work> work, absl::Duration patience, absl::Time now) {
  SendAll(IterateCommand{std::move(work)}, patience, now);
}

void GroupSession::Release(uint64_t request_id, absl::Time now) {
  SendAll(ReleaseCommand{request_id}, options_.iteration_timeout, now);
}

absl::Status GroupSession::OnReady(int rank, const ReadyMessage& message) {
  if (message.epoch != options_.epoch) return absl::OkStatus();
  if (ranks_[rank].ready) return absl::InternalError(absl::StrCat("rank ", rank, " said Ready twice"));
  ranks_[rank].ready = true;
  ++num_ready_;
  return absl::OkStatus();
}

absl::Status GroupSession::OnFault(int rank, const FaultMessage& message) {
  if (message.epoch != options_.epoch) return absl::OkStatus();
  return absl::AbortedError(absl::StrCat("rank ", rank, ": ", message.reason));
}

absl::Status GroupSession::TakeResults(Pending& pending, std::vector<WorkResult> results) const {
  if (results.size() != pending.work.size()) {
    return absl::InternalError(absl::StrCat("rank 0 answered command ", pending.number, " with ",
                                            results.size(), " results, expected ", pending.work.size()));
  }
  for (size_t i = 0; i < results.size(); ++i) {
    const Work& work = pending.work[i];
    const WorkResult& result = results[i];
    if (result.request_id != work.request_id || result.kind != work.kind || result.index != work.index) {
      return absl::InternalError(
          absl::StrCat("rank 0 answered command ", pending.number, " with results of other work"));
    }
    if (work.kind == WorkKind::kDecode && !result.image.has_value()) {
      return absl::InternalError(
          absl::StrCat("rank 0 decoded in command ", pending.number, " but sent no picture"));
    }
  }
  pending.results = std::move(results);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<GroupSession::Finished>> GroupSession::OnDone(int rank, DoneMessage message,
                                                                         absl::Time now) {
  std::vector<Finished> finished;
  if (message.epoch != options_.epoch) return finished;
  uint64_t& acknowledged = ranks_[rank].acknowledged;
  if (message.number != acknowledged + 1 || message.number > last_number_) {
    return absl::InternalError(absl::StrCat("rank ", rank, " acknowledged command ", message.number,
                                            " after ", acknowledged, "; ", last_number_, " were sent"));
  }
  acknowledged = message.number;
  if (rank == 0) {
    // Unacknowledged by rank 0 until now, so it is still pending.
    LANCET_RETURN_IF_ERROR(
        TakeResults(pending_[message.number - pending_.front().number], std::move(message.results)));
  }
  uint64_t by_all = acknowledged;
  for (const Rank& r : ranks_) by_all = std::min(by_all, r.acknowledged);
  while (!pending_.empty() && pending_.front().number <= by_all) {
    Pending& done = pending_.front();
    if (done.is_iteration) {
      --iterations_in_flight_;
      finished.push_back(
          {std::move(done.results), now - std::max(done.sent, last_finished_), std::move(done.work)});
    }
    last_finished_ = now;
    pending_.pop_front();
  }
  return finished;
}

absl::Status GroupSession::CheckDeadlines(absl::Time now) const {
  if (!serving()) {
    if (now - started_ <= options_.ready_timeout) return absl::OkStatus();
    for (size_t r = 0; r < ranks_.size(); ++r) {
      if (ranks_[r].ready) continue;
      return absl::DeadlineExceededError(
          absl::StrCat("rank ", r, " was not ready within ", absl::FormatDuration(options_.ready_timeout)));
    }
  }
  if (pending_.empty()) return absl::OkStatus();
  const Pending& oldest = pending_.front();
  if (now - std::max(oldest.sent, last_finished_) <= oldest.patience) return absl::OkStatus();
  for (size_t r = 0; r < ranks_.size(); ++r) {
    if (ranks_[r].acknowledged >= oldest.number) continue;
    return absl::DeadlineExceededError(absl::StrCat("rank ", r, " did not finish command ", oldest.number,
                                                    " within ", absl::FormatDuration(oldest.patience)));
  }
  return absl::OkStatus();
}

void GroupSession::Abort(const std::string& reason) {
  for (const Rank& rank : ranks_) rank.link->Send(AbortMessage{options_.epoch, reason});
}

}  // namespace lancet
