// One model replica: its ranks as they come and go, their heartbeats, and the session of the present epoch if
// all are there. When a rank is lost the epoch ends for all; the others stay, and a new epoch begins once the
// place is filled.
//
// Not thread-safe and without a clock or thread of its own: the owner's event loop drives it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/rank_messages.h"
#include "coordinator/group/group_session.h"
#include "coordinator/group/heartbeat.h"
#include "coordinator/group/rank_link.h"
#include "coordinator/schedule/scheduler.h"

namespace lancet {

class Group;

// What happens to groups, told on the event loop. Must not destroy the group it is called for.
class GroupObserver {
 public:
  virtual ~GroupObserver() = default;
  // A new epoch takes work.
  virtual void OnServing(Group& group) = 0;
  virtual void OnFinished(Group& group, GroupSession::Finished finished) = 0;
  // The epoch is over and everything on the group is lost. session() is null already.
  virtual void OnLost(Group& group, const absl::Status& reason) = 0;
  // A rank was told to end: the group takes nothing new from now on, and what runs on it has until `until`.
  // The owner calls Dismiss when nothing runs any more.
  virtual void OnLeaving(Group& group, absl::Time until) = 0;
};

// The epoch of a session to come, and the name of its segment, which is also the key of ranks that meet over
// TCP.
struct Rendezvous {
  uint64_t epoch = 0;
  std::string segment;
};

class Group {
 public:
  struct Options {
    Heartbeat::Options heartbeat;
    GroupSession::Options session;  // epoch and segment are filled in
    // After a lost epoch: how long to wait before the next one; doubles with every epoch that finishes no
    // iteration.
    absl::Duration first_backoff = absl::Milliseconds(200);
    absl::Duration max_backoff = absl::Seconds(30);
    std::function<Rendezvous(const std::string& group)> next_rendezvous;
  };

  // `observer` outlives the group.
  Group(std::string name, int world_size, Options options, GroupObserver* observer);

  // AlreadyExists if the rank is taken; FailedPrecondition names what does not agree with the other ranks.
  absl::Status CheckJoin(const RegisterMessage& info) const;
  // CheckJoin was OK.
  void Join(std::shared_ptr<RankLink> link, RegisterMessage info, absl::Time now);

  // Ignored if `link` is not that of the rank any more: a stream that was cut may still have something to
  // say.
  void OnMessage(int rank, const RankLink* link, RankMessage message, absl::Time now);
  void OnClosed(int rank, const RankLink* link, const absl::Status& reason, absl::Time now);
  // Pings, deadlines, new epochs. At least ten times a second.
  void Tick(absl::Time now);

  const std::string& name() const { return name_; }
  int world_size() const { return world_size_; }
  bool empty() const { return members_.empty(); }
  bool has_rank(int rank) const { return members_.count(rank) > 0; }
  bool complete() const { return static_cast<int>(members_.size()) == world_size_; }
  // Null unless all ranks are there and an epoch began.
  GroupSession* session() const { return session_.get(); }
  bool serving() const { return session_ != nullptr && session_->serving(); }
  // What every rank has room for, so the least of each; nothing if empty.
  GroupLimits limits() const;
  // Of rank 0, or of any rank while that one is missing.
  std::string device() const;
  // How many ranks compute how: groups that say the same give the same bytes for the same request.
  std::string numerics() const;
  // Some rank was told to end; no new epoch begins before it is replaced.
  bool leaving() const;
  // Lets the ranks go that were told to end. Idempotent.
  void Dismiss();

 private:
  struct Member {
    std::shared_ptr<RankLink> link;
    RegisterMessage info;
    Heartbeat heartbeat;
    bool leaving = false;
    bool dismissed = false;
  };

  // The member behind a link, or null.
  Member* Find(int rank, const RankLink* link);
  void Form(absl::Time now);
  void EndEpoch(const absl::Status& reason, absl::Time now);
  // Forgets the rank and cuts its stream.
  void Drop(int rank, const absl::Status& reason, absl::Time now);

  const std::string name_;
  const int world_size_;
  const Options options_;
  GroupObserver* const observer_;
  std::map<int, Member> members_;  // by rank
  std::unique_ptr<GroupSession> session_;
  absl::Duration backoff_ = absl::ZeroDuration();
  absl::Time form_not_before_ = absl::InfinitePast();
};

}  // namespace lancet
