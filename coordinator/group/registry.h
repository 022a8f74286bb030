// Where ranks join: checks who they say they are, refuses what cannot work and hands the others to their
// groups.
//
// Not thread-safe and without a clock or thread of its own: the owner's event loop drives it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/rank_messages.h"
#include "coordinator/group/group.h"
#include "coordinator/group/rank_link.h"

namespace lancet {

class Registry {
 public:
  struct Options {
    std::string fingerprint;  // of the coordinator's own checkpoint
    int max_groups = 16;
    int max_world_size = 64;
    int max_unregistered = 64;  // streams that have not said Register yet
    absl::Duration register_timeout = absl::Seconds(10);
    Group::Options group;  // next_rendezvous is filled in
    // Makes segment names that nobody can guess; called once per epoch.
    std::function<uint64_t()> random;
    int32_t pid = 0;  // in segment names, so that two coordinators of one host never share one
  };

  // `observer` outlives the registry.
  Registry(Options options, GroupObserver* observer);

  void OnConnected(std::shared_ptr<RankLink> link, absl::Time now);
  void OnMessage(const std::shared_ptr<RankLink>& link, RankMessage message, absl::Time now);
  void OnClosed(const std::shared_ptr<RankLink>& link, const absl::Status& reason, absl::Time now);
  void Tick(absl::Time now);

  // By name. Empty groups are forgotten in Tick.
  const std::map<std::string, std::unique_ptr<Group>>& groups() const { return groups_; }

 private:
  struct Place {
    Group* group = nullptr;  // null until registered
    int rank = 0;
    absl::Time connected;
    std::shared_ptr<RankLink> link;
  };

  absl::Status CheckRegister(const RegisterMessage& info) const;
  void Register(const std::shared_ptr<RankLink>& link, RegisterMessage info, absl::Time now);
  void Refuse(const std::shared_ptr<RankLink>& link, const absl::Status& reason);
  Rendezvous NextRendezvous(const std::string& group);

  const Options options_;
  GroupObserver* const observer_;
  uint64_t last_epoch_ = 0;
  std::map<std::string, std::unique_ptr<Group>> groups_;
  absl::flat_hash_map<const RankLink*, Place> places_;
  int num_unregistered_ = 0;
};

}  // namespace lancet
