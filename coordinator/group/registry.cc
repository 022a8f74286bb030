#include "coordinator/group/registry.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/logging.h"
#include "common/status_macros.h"

namespace lancet {
namespace {

// Group names become part of segment names and log lines.
bool IsGoodName(const std::string& name) {
  return !name.empty() && name.size() <= 32 && std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-' || c == '.';
  });
}

}  // namespace

Registry::Registry(Options options, GroupObserver* observer)
    : options_(std::move(options)), observer_(observer) {}

Rendezvous Registry::NextRendezvous(const std::string& group) {
  ++last_epoch_;
  return {last_epoch_,
          absl::StrFormat("lancet-%d-%s-%d-%016x", options_.pid, group, last_epoch_, options_.random())};
}

void Registry::OnConnected(std::shared_ptr<RankLink> link, absl::Time now) {
  if (num_unregistered_ >= options_.max_unregistered) {
    Refuse(link, absl::ResourceExhaustedError(
                     absl::StrCat("more than ", options_.max_unregistered, " streams have not registered")));
    return;
  }
  ++num_unregistered_;
  const RankLink* key = link.get();
  places_[key] = Place{nullptr, 0, now, std::move(link)};
}

absl::Status Registry::CheckRegister(const RegisterMessage& info) const {
  if (!IsGoodName(info.group)) {
    return absl::InvalidArgumentError("the group's name must be 1 to 32 letters, digits, '.', '_' or '-'");
  }
  if (info.world_size < 1 || info.world_size > options_.max_world_size) {
    return absl::InvalidArgumentError(
        absl::StrCat("world_size ", info.world_size, " is not within 1 to ", options_.max_world_size));
  }
  if (info.rank < 0 || info.rank >= info.world_size) {
    return absl::InvalidArgumentError(
        absl::StrCat("rank ", info.rank, " is not within 0 to ", info.world_size - 1));
  }
  if (info.max_latents < 1) {
    return absl::InvalidArgumentError(absl::StrCat("max_latents ", info.max_latents, " is below 1"));
  }
  for (const auto& [name, value] :
       {std::pair<absl::string_view, int64_t>("max_rows", info.max_rows),
        std::pair<absl::string_view, int64_t>("cache_tokens", info.cache_tokens),
        std::pair<absl::string_view, int64_t>("max_requests", info.max_requests)}) {
    if (value < 1) return absl::InvalidArgumentError(absl::StrCat(name, " ", value, " is below 1"));
  }
  if (info.fingerprint != options_.fingerprint) {
    return absl::InvalidArgumentError(absl::StrCat("fingerprint '", info.fingerprint,
                                                   "' is of another checkpoint than the coordinator's, '",
                                                   options_.fingerprint, "'"));
  }
  const auto group = groups_.find(info.group);
  if (group != groups_.end()) return group->second->CheckJoin(info);
  if (static_cast<int>(groups_.size()) >= options_.max_groups) {
    return absl::ResourceExhaustedError(absl::StrCat("there are ", options_.max_groups, " groups already"));
  }
  return absl::OkStatus();
}

void Registry::Refuse(const std::shared_ptr<RankLink>& link, const absl::Status& reason) {
  LogWarning("rank refused", {{"reason", reason.message()}});
  // A rank that is still taken, or a full table, may pass; a wrong name or checkpoint does not.
  link->Send(RefuseMessage{std::string(reason.message()), absl::IsInvalidArgument(reason)});
  link->Close(/*flush=*/true);
}

void Registry::Register(const std::shared_ptr<RankLink>& link, RegisterMessage info, absl::Time now) {
  if (const absl::Status status = CheckRegister(info); !status.ok()) {
    places_.erase(link.get());
    Refuse(link, status);
    return;
  }
  std::unique_ptr<Group>& group = groups_[info.group];
  if (group == nullptr) {
    Group::Options options = options_.group;
    options.next_rendezvous = [this](const std::string& name) { return NextRendezvous(name); };
    group = std::make_unique<Group>(info.group, info.world_size, std::move(options), observer_);
  }
  Place& place = places_[link.get()];
  place.group = group.get();
  place.rank = info.rank;
  group->Join(link, std::move(info), now);
}

void Registry::OnMessage(const std::shared_ptr<RankLink>& link, RankMessage message, absl::Time now) {
  const auto found = places_.find(link.get());
  if (found == places_.end()) return;  // refused or dropped, and still talking
  if (found->second.group != nullptr) {
    found->second.group->OnMessage(found->second.rank, link.get(), std::move(message), now);
    return;
  }
  --num_unregistered_;
  if (auto* info = std::get_if<RegisterMessage>(&message)) {
    Register(link, std::move(*info), now);
    return;
  }
  places_.erase(found);
  Refuse(link, absl::InvalidArgumentError("the first message must be Register"));
}

void Registry::OnClosed(const std::shared_ptr<RankLink>& link, const absl::Status& reason, absl::Time now) {
  const auto found = places_.find(link.get());
  if (found == places_.end()) return;
  const Place place = std::move(found->second);
  places_.erase(found);
  if (place.group == nullptr) {
    --num_unregistered_;
  } else {
    place.group->OnClosed(place.rank, link.get(), reason, now);
  }
}

void Registry::Tick(absl::Time now) {
  std::vector<std::shared_ptr<RankLink>> silent;
  for (const auto& [key, place] : places_) {
    if (place.group == nullptr && now - place.connected > options_.register_timeout)
      silent.push_back(place.link);
  }
  for (const std::shared_ptr<RankLink>& link : silent) {
    places_.erase(link.get());
    --num_unregistered_;
    Refuse(link, absl::DeadlineExceededError("no Register came in time"));
  }
  for (auto& [name, group] : groups_) group->Tick(now);
  // Places may point to an empty group: streams that were cut and have not reported it yet.
  for (auto it = groups_.begin(); it != groups_.end();) {
    Group* group = it->second.get();
    if (!group->empty()) {
      ++it;
      continue;
    }
    absl::erase_if(places_, [group](const auto& entry) { return entry.second.group == group; });
    it = groups_.erase(it);
  }
}

}  // namespace lancet
