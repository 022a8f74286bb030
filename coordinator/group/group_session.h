// One epoch of one group: the same numbered commands to every rank, the answers merged. It lives and dies as
// one: any error that a function here returns means that the epoch is over, and its owner calls Abort.
//
// Not thread-safe and without a clock or thread of its own: the owner's event loop drives it.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/rank_messages.h"
#include "coordinator/group/rank_link.h"

namespace lancet {

class GroupSession {
 public:
  struct Options {
    uint64_t epoch = 1;
    std::string segment;                            // for Form
    std::vector<std::string> collective_addresses;  // for Form: by rank, or empty
    // Two, so that ranks find the next iteration waiting when they finish one.
    int max_iterations = 2;
    // Commands of any kind that not all ranks have acknowledged; ranks take 64.
    int max_commands = 32;
    absl::Duration ready_timeout = absl::Minutes(10);  // from Form to the last Ready
    // For the oldest unfinished command, if nothing shorter was said of it.
    absl::Duration iteration_timeout = absl::Minutes(10);
  };

  // What all ranks have executed.
  struct Finished {
    std::vector<WorkResult> results;  // of rank 0; one per work of the iteration
    absl::Duration took;     // since it was sent, or since its predecessor finished if that was later
    std::vector<Work> work;  // that the results are of
  };

  // `links` by rank; they outlive the session.
  GroupSession(Options options, const std::vector<RankLink*>& links);

  // Sends Form.
  void Start(absl::Time now);
  bool serving() const { return num_ready_ == static_cast<int>(ranks_.size()); }
  uint64_t epoch() const { return options_.epoch; }

  // Whether another iteration may be sent now.
  bool CanIterate() const;
  // Whether `count` commands may be sent now.
  bool CanSend(int count) const;

  // Numbered commands to all ranks. Only while serving.
  void Admit(RequestPlan plan, absl::Time now);
  // `patience`: how long it may take, if that is less than iteration_timeout.
  void Iterate(std::vector<Work> work, absl::Duration patience, absl::Time now);
  void Release(uint64_t request_id, absl::Time now);

  // Answers. What belongs to an older epoch is ignored.
  absl::Status OnReady(int rank, const ReadyMessage& message);
  absl::Status OnFault(int rank, const FaultMessage& message);
  // The iterations that are finished now, oldest first.
  absl::StatusOr<std::vector<Finished>> OnDone(int rank, DoneMessage message, absl::Time now);
  // DeadlineExceeded names the rank that is behind.
  absl::Status CheckDeadlines(absl::Time now) const;

  // Tells every rank that the epoch is over.
  void Abort(const std::string& reason);

 private:
  struct Rank {
    RankLink* link = nullptr;
    bool ready = false;
    uint64_t acknowledged = 0;  // the last number
  };
  struct Pending {
    uint64_t number = 0;
    absl::Time sent;
    absl::Duration patience;
    bool is_iteration = false;
    std::vector<Work> work;
    std::vector<WorkResult> results;
  };

  void SendAll(decltype(CommandMessage::command) command, absl::Duration patience, absl::Time now);
  absl::Status TakeResults(Pending& pending, std::vector<WorkResult> results) const;

  const Options options_;
  std::vector<Rank> ranks_;
  int num_ready_ = 0;
  absl::Time started_;
  uint64_t last_number_ = 0;
  int iterations_in_flight_ = 0;
  std::deque<Pending> pending_;  // not yet acknowledged by all, in order
  absl::Time last_finished_;
};

}  // namespace lancet
