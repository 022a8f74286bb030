// The coordinator's one owner of state: requests from arrival to outcome, the queue, the groups. It asks the
// scheduler what to do next, drives the sessions and tells the clients' streams.
//
// Not thread-safe and without a clock or thread of its own: Dispatcher lends it an event loop, tests call it
// directly.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/request_plan.h"
#include "coordinator/dispatch/audience.h"
#include "coordinator/dispatch/event_stream.h"
#include "coordinator/dispatch/image_encoder.h"
#include "coordinator/dispatch/service_estimate.h"
#include "coordinator/dispatch/service_observer.h"
#include "coordinator/group/group.h"
#include "coordinator/group/registry.h"
#include "coordinator/request/admission.h"
#include "coordinator/request/answer_text.h"
#include "coordinator/schedule/iteration_cost.h"
#include "coordinator/schedule/iteration_patience.h"
#include "coordinator/schedule/placement.h"
#include "coordinator/schedule/queue.h"
#include "coordinator/schedule/request_state.h"
#include "coordinator/schedule/scheduler.h"

namespace lancet {

// A request that passed admission.
struct NewRequest {
  RequestPlan plan;  // with its id
  RequestOrigin origin;
  std::optional<PreviewPlan> preview;
  ImageFormat output_format = ImageFormat::kPng;
  Priority priority = Priority::kNormal;
  std::vector<std::string> warnings;
  std::optional<InputImageInfo> input;
  std::unique_ptr<AnswerText> text;  // for a plan with an answer
  absl::Time arrival;
  absl::Time deadline = absl::InfiniteFuture();
  std::shared_ptr<EventStream> stream;
  // Not empty: a request with the same key that is known already is joined instead of being started again, if
  // the digest of what was asked for is the same.
  std::string idempotency_key{};
  uint64_t digest = 0;
  // Takes what the request costs from its token's allowance. Called once, for new work that the queue would
  // take: what joins a request that is known costs nothing. Null: nothing is taken.
  std::function<CallStatus(absl::Time now)> charge{};
};

// What happens to requests whose group is lost.
struct RecoveryOptions {
  int32_t snapshot_every = 5;                      // steps between two snapshots; 0: none
  absl::Duration snapshot_age = absl::Seconds(5);  // earlier, if the last one is so old
  // How long an accepted request waits for a group that may serve it, once there is none.
  absl::Duration group_wait = absl::Minutes(2);
  // Groups that may die while a request runs; with the last of them it fails.
  int max_losses = 2;
  // Lets a request that began on one kind of group go on on another, whose bytes differ.
  bool resume_anywhere = false;
  // Before a leaving group's time is over: when what still runs is taken off it.
  absl::Duration hand_over_margin = absl::Seconds(1);
};

// Requests that may be joined.
struct IdempotencyOptions {
  absl::Duration lifetime = absl::Minutes(5);      // of a result after its request ended
  absl::Duration orphan_wait = absl::Seconds(30);  // for somebody to join a request that nobody listens to
  size_t max_results = 1024;                       // kept at once, the oldest go first
  size_t max_result_bytes = size_t{64} << 20;
};

// For GetModelInfo and for people.
struct GroupInfo {
  std::string name;
  int world_size = 0;
  bool serving = false;
  int active_requests = 0;
  std::string device;
  bool has_vision = false;             // edits and describes
  bool leaving = false;                // takes nothing new
  std::vector<bool> ranks_there = {};  // by rank
  int64_t cache_tokens = 0;            // set aside for running requests
  int64_t max_cache_tokens = 0;        // there is memory for
};

// The whole service at one time.
struct ServiceStatus {
  absl::Time time = absl::InfinitePast();
  std::vector<GroupInfo> groups;
  int waiting = 0;  // requests in the queue
  int running = 0;
  int calls = 0;  // with those whose client still reads
};

class DispatcherCore final : private GroupObserver {
 public:
  struct Options {
    int max_active = 16;  // requests on one group, if its ranks hold as many
    int64_t row_budget = std::numeric_limits<int64_t>::max();  // of an iteration, if ranks take as many
    int max_queue = 64;                                        // requests that wait
    // Calls that exist at all: waiting, running, or with a client that still reads.
    int max_calls = 256;
    absl::Duration ageing = absl::Seconds(30);  // of waiting, per level of priority
    absl::Duration client_stall_timeout = absl::Seconds(60);
    std::string fingerprint;
    Registry::Options registry;  // fingerprint is filled in
    RecoveryOptions recovery;
    IterationPatience::Options patience;
    IdempotencyOptions idempotency;
    ImageEncoder* encoder = nullptr;  // outlives the core
    // Runs a function on the event loop with its time, from any thread; false if the loop has ended.
    std::function<bool(std::function<void(absl::Time now)>)> post;
    // Called when it changes: whether work is taken, and work with pictures to look at.
    std::function<void(bool serving, bool serving_vision)> on_readiness;
    ServiceObserver* observer = nullptr;  // outlives the core; may be null
  };

  explicit DispatcherCore(Options options);

  // Requests. A call has the id of the request that it brought; one that joins another request keeps its own.
  void Submit(NewRequest request, absl::Time now);
  // The client cancelled or vanished. A request that may be joined goes on for a while; any other leaves.
  void Cancel(uint64_t id, absl::Time now);
  // The call is over for the transport; its stream goes away.
  void OnCallDone(uint64_t id, absl::Time now);

  // Ranks.
  void OnConnected(std::shared_ptr<RankLink> link, absl::Time now);
  void OnMessage(const std::shared_ptr<RankLink>& link, RankMessage message, absl::Time now);
  void OnClosed(const std::shared_ptr<RankLink>& link, const absl::Status& reason, absl::Time now);

  // Deadlines, heartbeats, stalled clients. At least ten times a second.
  void Tick(absl::Time now);

  // No new work from now on; what was accepted may finish.
  void Drain();
  // Ends everything that is left.
  void Stop(absl::Time now);
  // Whether no call is left.
  bool idle() const;

  std::vector<GroupInfo> Groups() const;
  ServiceStatus Status(absl::Time now) const;

 private:
  // Of a call that asks for a request that is known.
  struct Joined {
    RequestOrigin origin;
    absl::Time arrival;
  };
  // Somebody who listens to a request.
  struct Client {
    uint64_t id = 0;  // of the call
    std::shared_ptr<EventStream> stream;
    bool left = false;  // the transport still has to say that the call is over
    // Of a call that joined; the outcome of the call that brought the request is the request's.
    std::optional<Joined> joined{};
  };
  // One request, from Submit to the last OnCallDone; one that may be joined stays until its result expires.
  struct Call {
    RequestState state;
    RequestPlan plan;  // as it came; kept until the work is done, to begin again
    SamplerParams sampler;
    uint64_t seed = 0;
    int32_t width = 0;  // pixels
    int32_t height = 0;
    std::optional<PreviewPlan> preview;
    ImageFormat output_format = ImageFormat::kPng;
    std::vector<std::string> warnings;
    std::shared_ptr<Audience> audience;
    std::vector<Client> clients;
    std::string key;  // for those who join; empty: nobody may
    uint64_t digest = 0;
    absl::Time orphaned = absl::InfiniteFuture();  // when the last client left
    absl::Time expires = absl::InfiniteFuture();   // of a result that is kept
    std::shared_ptr<PreviewSlot> previews;         // null if none are wanted
    Group* group = nullptr;                        // while running
    int32_t position = -1;                         // as told last
    std::optional<InputImageInfo> input;
    std::unique_ptr<AnswerText> text;    // of an answer
    std::optional<AnswerParams> answer;  // likewise
    int32_t prompt_tokens = 0;           // rows of the prefix
    std::vector<int32_t> tokens;         // picked so far
    size_t tokens_at_start = 0;          // of this run
    std::optional<LatentSnapshot> snapshot;
    int resumes = 0;
    int losses = 0;                                // of groups, while it ran
    absl::Time homeless = absl::InfiniteFuture();  // since when no group may serve it
    bool hand_over = false;                        // off its group, as soon as that costs nothing
    bool ended = false;                            // the outcome is decided
    std::string group_name;                        // for the log
    RequestOrigin origin;
    bool told_preview = false;  // the observer, of the first one
    absl::Time started;
    StageTimings timings;
  };
  // What the core adds to a group.
  struct Load {
    std::vector<Call*> running;
    bool tokens_left_out = false;     // by the iteration before
    std::deque<IterationSize> sizes;  // of the iterations in flight
    IterationCostMeter cost;
    IterationPatience patience{IterationPatience::Options()};
    absl::Time leave_by = absl::InfiniteFuture();
  };

  void OnServing(Group& group) override;
  void OnFinished(Group& group, GroupSession::Finished finished) override;
  void OnLost(Group& group, const absl::Status& reason) override;
  void OnLeaving(Group& group, absl::Time until) override;

  // The request of a call, or null.
  Call* Find(uint64_t call_id);
  // True if the request was known and the call joined it, or was refused for a reason of the key.
  bool Join(NewRequest& request, absl::Time now);
  // The client hears nothing more; without another one the request leaves, or waits to be joined.
  void LeaveAudience(Call& call, Client& client, absl::Status status, absl::Time now);
  // After the end: for those who join.
  void KeepResult(Call& call, const absl::Status& status, absl::Time now);
  // Forgets results whose time or room is over, and requests without clients.
  void ExpireResults(absl::Time now);

  // OK if the request may wait for a place.
  CallStatus CheckNew(const NewRequest& request, const RequestShape& shape, absl::Time now) const;
  // Requests in the queue whose token has this name.
  int WaitingOf(const std::string& caller) const;
  // Fills free places and keeps every session busy; then tells about changes.
  void Pump(absl::Time now);
  void StartWaiting(absl::Time now);
  void Start(Call& call, Group& group, Load& load, absl::Time now);
  void OnResult(Call& call, const Work& work, WorkResult result, absl::Time now);
  void OnPicture(Call& call, RgbImage image, absl::Time now);
  void OnToken(Call& call, const AnswerToken& token, absl::Time now);
  void OnEncoded(uint64_t id, absl::StatusOr<EncodedImage> image, absl::Duration took, absl::Time now);
  // What is sent to a group for the request: the plan as it came, or the rest of it.
  static RequestPlan PlanToCome(const Call& call);
  // Back into the queue, after its group was lost or left.
  void Requeue(Call& call, bool blamed);
  // Off a group that leaves, if nothing would be computed twice, or `at_once`.
  void HandOver(Call& call, bool at_once, absl::Time now);
  void TakeOffLeavingGroups(absl::Time now);
  void EndHomeless(absl::Time now);
  // Takes the request off its group or out of the queue; ranks drop it before their next iteration.
  void Leave(Call& call, absl::Time now);
  // Decides the outcome: leaves, ends the stream, logs.
  void End(Call& call, CallStatus status, absl::Time now);
  void TellProgress(Call& call, absl::Time now);
  void TellPositions(absl::Time now);
  void TellReadiness();
  // Serves and takes new work.
  static bool TakesWork(const Group& group) { return group.serving() && !group.leaving(); }
  bool AnyServing() const;
  GroupState StateOf(const Group& group, const Load& load) const;
  IterationSize SizeOf(const Iteration& iteration) const;
  // Of serving groups, in the order of their names.
  std::vector<GroupState> StatesOfServing() const;
  // The group's limits, and what the operator allows of them.
  GroupLimits LimitsOf(const Group& group) const;
  // OK if some serving group could run a request of this shape.
  absl::Status CheckFitsSome(const RequestShape& shape) const;
  // Iterations until everything running and the first `waiting` of the queue is done, roughly.
  int64_t WorkAhead(absl::Span<const RequestState* const> waiting) const;
  void TellOutcome(const Call& call, const CallStatus& status, absl::Time now) const;
  // Of the call `id` that joined, or would have.
  void TellJoined(const Call& call, uint64_t id, const Joined& joined, const CallStatus& status,
                  absl::Time now) const;

  const Options options_;
  ServiceObserver no_observer_;
  ServiceObserver* const observer_;
  Registry registry_;
  RequestQueue queue_;
  ServiceEstimate estimate_;
  std::map<uint64_t, std::unique_ptr<Call>> calls_;  // by id of the request
  std::map<uint64_t, uint64_t> joined_;              // from calls that joined to the request's id
  std::map<std::string, uint64_t> keys_;             // to the request's id
  std::deque<uint64_t> kept_;                        // requests whose result is kept, the oldest first
  size_t kept_bytes_ = 0;
  std::map<const Group*, Load> loads_;  // of serving groups
  bool draining_ = false;
  bool told_serving_ = false;
  bool told_serving_vision_ = false;
  absl::Time now_;  // of the event being handled, for what observers are told
};

}  // namespace lancet
