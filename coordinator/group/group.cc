#include "coordinator/group/group.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/logging.h"

namespace lancet {

Group::Group(std::string name, int world_size, Options options, GroupObserver* observer)
    : name_(std::move(name)), world_size_(world_size), options_(std::move(options)), observer_(observer) {}

absl::Status Group::CheckJoin(const RegisterMessage& info) const {
  if (info.world_size != world_size_) {
    return absl::FailedPreconditionError(absl::StrCat(
        "world_size ", info.world_size, " does not agree with group '", name_, "', which has ", world_size_));
  }
  if (members_.count(info.rank) > 0) {
    return absl::AlreadyExistsError(absl::StrCat("rank ", info.rank, " of group '", name_, "' is taken"));
  }
  for (const auto& [rank, member] : members_) {
    const RegisterMessage& other = member.info;
    if (other.host != info.host && (other.collective_address.empty() || info.collective_address.empty())) {
      return absl::FailedPreconditionError(absl::StrCat(
          "host '", info.host, "' is not that of rank ", rank, " of group '", name_, "', '", other.host,
          "': ranks of several hosts need a collective_address each (--collective_listen)"));
    }
  }
  return absl::OkStatus();
}

void Group::Join(std::shared_ptr<RankLink> link, RegisterMessage info, absl::Time now) {
  LogInfo("rank joined", {{"group", name_},
                          {"rank", info.rank},
                          {"world_size", world_size_},
                          {"device", info.device},
                          {"pid", info.pid}});
  const int rank = info.rank;
  members_.emplace(rank, Member{std::move(link), std::move(info), Heartbeat(options_.heartbeat)});
  if (complete() && !leaving() && now >= form_not_before_) Form(now);
}

void Group::Form(absl::Time now) {
  GroupSession::Options options = options_.session;
  Rendezvous rendezvous = options_.next_rendezvous(name_);
  options.epoch = rendezvous.epoch;
  options.segment = std::move(rendezvous.segment);
  std::vector<RankLink*> links;
  bool one_host = true;
  for (const auto& [rank, member] : members_) {
    links.push_back(member.link.get());
    options.collective_addresses.push_back(member.info.collective_address);
    one_host = one_host && member.info.host == members_.begin()->second.info.host;
  }
  if (one_host) options.collective_addresses.clear();
  LogInfo("group forms", {{"group", name_}, {"epoch", options.epoch}, {"world_size", world_size_}});
  session_ = std::make_unique<GroupSession>(std::move(options), links);
  session_->Start(now);
}

void Group::EndEpoch(const absl::Status& reason, absl::Time now) {
  if (session_ == nullptr) return;
  LogWarning("group lost", {{"group", name_}, {"epoch", session_->epoch()}, {"reason", reason.message()}});
  session_->Abort(std::string(reason.message()));
  session_.reset();
  backoff_ = std::clamp(2 * backoff_, options_.first_backoff, options_.max_backoff);
  form_not_before_ = now + backoff_;
  observer_->OnLost(*this, reason);
}

void Group::Drop(int rank, const absl::Status& reason, absl::Time now) {
  const auto found = members_.find(rank);
  if (found == members_.end()) return;
  LogWarning("rank lost", {{"group", name_}, {"rank", rank}, {"reason", reason.message()}});
  // Kept alive beyond EndEpoch, whose session refers to it.
  const std::shared_ptr<RankLink> link = found->second.link;
  EndEpoch(absl::UnavailableError(absl::StrCat("rank ", rank, " was lost: ", reason.message())), now);
  members_.erase(rank);
  link->Close(/*flush=*/false);
}

Group::Member* Group::Find(int rank, const RankLink* link) {
  const auto found = members_.find(rank);
  return found != members_.end() && found->second.link.get() == link ? &found->second : nullptr;
}

void Group::OnMessage(int rank, const RankLink* link, RankMessage message, absl::Time now) {
  Member* member = Find(rank, link);
  if (member == nullptr) return;
  if (const auto* pong = std::get_if<PongMessage>(&message)) {
    member->heartbeat.OnPong(pong->id);
    return;
  }
  if (std::holds_alternative<RegisterMessage>(message)) {
    Drop(rank, absl::InvalidArgumentError("it registered twice on one stream"), now);
    return;
  }
  if (const auto* leaving = std::get_if<LeavingMessage>(&message)) {
    LogInfo("rank leaves", {{"group", name_}, {"rank", rank}, {"grace_s", leaving->grace_seconds}});
    member->leaving = true;
    observer_->OnLeaving(*this, now + absl::Seconds(leaving->grace_seconds));
    return;
  }
  if (session_ == nullptr) return;  // an answer to the epoch that has just ended
  if (const auto* ready = std::get_if<ReadyMessage>(&message)) {
    const bool was_serving = session_->serving();
    if (const absl::Status status = session_->OnReady(rank, *ready); !status.ok()) {
      EndEpoch(status, now);
    } else if (session_->serving() && !was_serving) {
      LogInfo("group serves", {{"group", name_}, {"epoch", session_->epoch()}});
      observer_->OnServing(*this);
    }
  } else if (const auto* fault = std::get_if<FaultMessage>(&message)) {
    if (const absl::Status status = session_->OnFault(rank, *fault); !status.ok()) EndEpoch(status, now);
  } else {
    absl::StatusOr<std::vector<GroupSession::Finished>> finished =
        session_->OnDone(rank, std::get<DoneMessage>(std::move(message)), now);
    if (!finished.ok()) {
      EndEpoch(finished.status(), now);
      return;
    }
    for (GroupSession::Finished& iteration : *finished) {
      backoff_ = absl::ZeroDuration();
      observer_->OnFinished(*this, std::move(iteration));
    }
  }
}

void Group::OnClosed(int rank, const RankLink* link, const absl::Status& reason, absl::Time now) {
  if (Find(rank, link) == nullptr) return;
  Drop(rank, reason.ok() ? absl::UnavailableError("it left") : reason, now);
}

void Group::Tick(absl::Time now) {
  std::vector<int> dead;
  for (auto& [rank, member] : members_) {
    if (member.heartbeat.Dead(now)) {
      dead.push_back(rank);
    } else if (const std::optional<uint64_t> id = member.heartbeat.Ping(now)) {
      member.link->Send(PingMessage{*id});
    }
  }
  for (const int rank : dead) {
    Drop(rank,
         absl::UnavailableError(
             absl::StrCat("no answer to a ping for ", absl::FormatDuration(options_.heartbeat.timeout))),
         now);
  }
  if (session_ != nullptr) {
    if (const absl::Status status = session_->CheckDeadlines(now); !status.ok()) EndEpoch(status, now);
  } else if (complete() && !leaving() && now >= form_not_before_) {
    Form(now);
  }
}

GroupLimits Group::limits() const {
  GroupLimits limits;
  bool first = true;
  for (const auto& [rank, member] : members_) {
    const RegisterMessage& info = member.info;
    const GroupLimits own{info.max_requests, info.max_rows,    info.cache_tokens,
                          info.max_latents,  info.max_patches, info.has_vision};
    if (std::exchange(first, false)) {
      limits = own;
      continue;
    }
    limits.max_requests = std::min(limits.max_requests, own.max_requests);
    limits.max_rows = std::min(limits.max_rows, own.max_rows);
    limits.cache_tokens = std::min(limits.cache_tokens, own.cache_tokens);
    limits.max_latents = std::min(limits.max_latents, own.max_latents);
    limits.max_patches = std::min(limits.max_patches, own.max_patches);
    limits.has_vision = limits.has_vision && own.has_vision;
  }
  return limits;
}

std::string Group::numerics() const {
  std::string kinds;
  const std::string* last = nullptr;
  for (const auto& [rank, member] : members_) {
    // Ranks that compute alike are named once.
    if (last == nullptr || *last != member.info.numerics) absl::StrAppend(&kinds, " ", member.info.numerics);
    last = &member.info.numerics;
  }
  return absl::StrCat(world_size_, " x", kinds);
}

bool Group::leaving() const {
  return std::any_of(members_.begin(), members_.end(),
                     [](const auto& entry) { return entry.second.leaving; });
}

void Group::Dismiss() {
  for (auto& [rank, member] : members_) {
    if (!member.leaving || std::exchange(member.dismissed, true)) continue;
    member.link->Send(ShutdownMessage{});
  }
}

std::string Group::device() const { return members_.empty() ? "" : members_.begin()->second.info.device; }

}  // namespace lancet
