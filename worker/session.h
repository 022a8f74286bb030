// The rank's side of the command stream: registers with the coordinator, joins the epochs it is told to join,
// runs commands strictly in order on the engine and reports back. Survives a lost coordinator with its
// weights loaded.
//
// Two threads are lent to a session, so that the one that computes can be slow and of low priority:
//   RunLink      dials, registers, watches for silence, dials again;
//   RunExecutor  runs Form and the numbered commands, one at a time. Only this thread touches the engine.
// The transport's threads call the handler: they answer Ping at once, queue commands, and end an epoch
// (Abort, a gap in the numbers, a broken stream) by aborting its collective, so that a blocked executor comes
// out.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <variant>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/rank_messages.h"
#include "worker/backoff.h"
#include "worker/collective/collective.h"
#include "worker/coordinator_stream.h"
#include "worker/engine/engine.h"

namespace lancet {

struct SessionOptions {
  RegisterMessage registration;
  // The coordinator keeps two iterations in flight, and admissions and releases between them; more is a
  // fault.
  size_t max_queued_commands = 64;
  // A coordinator that pinged and then says nothing for so long is taken for lost.
  absl::Duration silence_timeout = absl::Seconds(10);
  absl::Duration first_backoff = absl::Milliseconds(100);
  absl::Duration max_backoff = absl::Seconds(2);
  // Between attempts while the coordinator refuses this rank for a reason that may pass (its place is still
  // taken).
  absl::Duration refused_delay = absl::Seconds(1);
  // Between the end of an epoch and the return of the executor from what it did for it: one that is later is
  // taken for stuck, and the process with it. Only work without sums over ranks notices the end late: the
  // autoencoder's, which takes one slow core minutes at 1024 x 1024.
  absl::Duration stuck_timeout = absl::Minutes(10);
  // How long a leaving rank waits for its last messages to be taken.
  absl::Duration close_grace = absl::Seconds(1);
  uint64_t jitter_seed = 0;
};

// Joins the ranks of an epoch. `cancelled` turns true when the epoch is over before everybody came.
using CollectiveFactory = std::function<absl::StatusOr<std::unique_ptr<Collective>>(
    const FormMessage& form, const std::function<bool()>& cancelled)>;

// Thread-safe, but RunLink and RunExecutor are called once each.
class Session final : private CoordinatorStreamHandler {
 public:
  // `connector` must outlive the session. InvalidArgument for a rank outside its world.
  static absl::StatusOr<std::unique_ptr<Session>> Create(SessionOptions options,
                                                         CoordinatorConnector* connector,
                                                         CollectiveFactory factory);
  ~Session() override = default;

  // Returns OK after Stop or when the coordinator sent Shutdown, FailedPrecondition when it refused this rank
  // for good. Ends RunExecutor too, unless that is stuck: DeadlineExceeded, and its thread cannot be joined.
  absl::Status RunLink();
  // Returns when the session ends. A command that is being computed is finished first.
  void RunExecutor(Engine* engine);
  // Leaves the group: ends both loops.
  void Stop();
  // Asks the coordinator to let this rank go, and ends both loops when it does, when the stream ends, or
  // after `grace`. A second call is Stop, as is the first one without a coordinator.
  void Leave(absl::Duration grace);

 private:
  // What the executor has to do. `term` tells work of an epoch that is over from work of the present one,
  // even if a restarted coordinator uses the same epoch numbers again.
  struct Task {
    uint64_t term = 0;
    std::variant<FormMessage, CommandMessage, ShutdownMessage> what;
  };

  Session(SessionOptions options, CoordinatorConnector* connector, CollectiveFactory factory);

  void OnMessage(CoordinatorMessage message) override;
  void OnClosed(absl::Status reason) override;

  void OnForm(FormMessage form);
  void OnCommand(CommandMessage command);

  // One stream from dialling to its end. Returns how long to wait before the next one, or nothing to end the
  // session.
  std::optional<absl::Duration> RunStream(Backoff& backoff);

  void ExecuteForm(Engine* engine, uint64_t term, const FormMessage& form);
  void ExecuteCommand(Engine* engine, uint64_t term, const CommandMessage& command);

  // Ends the present epoch, if there is one and `term` (when given) names it: drops queued work, aborts the
  // collective. True if it ended something.
  bool EndEpoch(std::optional<uint64_t> term, const std::string& reason);
  // EndEpoch, and tells the coordinator.
  void Fail(uint64_t term, uint64_t epoch, const std::string& reason);
  bool IsCurrent(uint64_t term);
  bool IsCurrentLocked(uint64_t term) const;  // with mu_ held
  // When the executor will have been busy with an epoch that is over for too long; with mu_ held.
  absl::Time StuckAt() const { return outlived_ + options_.stuck_timeout; }
  // A failure to send shows as OnClosed, too; null does nothing.
  static void Send(CoordinatorStream* stream, RankMessage message);
  // On the present stream.
  void Reply(RankMessage message);
  // On the present stream, if `term` is the present one.
  void SendFrom(uint64_t term, RankMessage message);

  const SessionOptions options_;
  CoordinatorConnector* const connector_;
  const CollectiveFactory factory_;

  // std::mutex and not absl::Mutex: the distribution's Abseil is not instrumented, so TSan would not see its
  // locks. Everything below is guarded by it; it is never held across a call to stream, collective or engine.
  std::mutex mu_;
  std::condition_variable changed_;
  bool stopping_ = false;
  bool shutdown_ = false;                 // the executor reached the Shutdown message
  std::optional<absl::Time> leave_by_;    // after Leave
  std::optional<RefuseMessage> refusal_;  // of the present stream
  // Shared: the executor may be sending while the link thread replaces a broken stream.
  std::shared_ptr<CoordinatorStream> stream_;
  bool stream_open_ = false;
  std::string close_reason_;
  std::optional<absl::Time> last_ping_;  // of the present stream
  absl::Time last_heard_;
  bool formed_ = false;  // the present stream brought a Form
  uint64_t epoch_ = 0;   // 0: none
  uint64_t term_ = 0;
  uint64_t next_number_ = 1;
  std::deque<Task> tasks_;
  bool executing_ = false;  // a task
  // Since when the epoch of the task under way is over.
  absl::Time outlived_ = absl::InfiniteFuture();
  // Shared: an abort from the stream's thread may run while the executor lets go of the epoch.
  std::shared_ptr<Collective> collective_;
};

}  // namespace lancet
