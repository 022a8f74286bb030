#include "worker/session.h"

#include <algorithm>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "common/trace_context.h"

namespace lancet {
namespace {

// For logs; zeros if the plan has none.
std::string TraceIdOf(const RequestPlan& plan) {
  return ParseTraceparent(plan.traceparent).value_or(TraceContext{}).TraceId();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Session>> Session::Create(SessionOptions options,
                                                         CoordinatorConnector* connector,
                                                         CollectiveFactory factory) {
  const RegisterMessage& me = options.registration;
  if (me.world_size < 1 || me.rank < 0 || me.rank >= me.world_size) {
    return absl::InvalidArgumentError(
        absl::StrCat("rank is ", me.rank, "; it must be within 0.., below world_size ", me.world_size));
  }
  return absl::WrapUnique(new Session(std::move(options), connector, std::move(factory)));
}

Session::Session(SessionOptions options, CoordinatorConnector* connector, CollectiveFactory factory)
    : options_(std::move(options)), connector_(connector), factory_(std::move(factory)) {}

absl::Status Session::RunLink() {
  Backoff backoff(options_.first_backoff, options_.max_backoff, options_.jitter_seed);
  while (const std::optional<absl::Duration> wait = RunStream(backoff)) {
    std::unique_lock<std::mutex> lock(mu_);
    changed_.wait_for(lock, absl::ToChronoNanoseconds(*wait), [this] { return stopping_ || shutdown_; });
    if (stopping_ || shutdown_ || absl::Now() >= StuckAt()) break;
  }
  Stop();
  const std::lock_guard<std::mutex> lock(mu_);
  if (absl::Now() >= StuckAt()) {
    return absl::DeadlineExceededError(absl::StrCat("the compute thread did not come back within ",
                                                    absl::FormatDuration(options_.stuck_timeout),
                                                    " after its epoch ended"));
  }
  if (refusal_.has_value() && refusal_->permanent) {
    return absl::FailedPreconditionError(
        absl::StrCat("the coordinator refused this rank: ", refusal_->reason));
  }
  return absl::OkStatus();
}

std::optional<absl::Duration> Session::RunStream(Backoff& backoff) {
  absl::StatusOr<std::unique_ptr<CoordinatorStream>> connected = connector_->Connect(this);
  if (!connected.ok()) {
    LogWarning("cannot dial the coordinator", {{"reason", connected.status().message()}});
    return backoff.Next();
  }
  std::shared_ptr<CoordinatorStream> stream = *std::move(connected);
  {
    const std::lock_guard<std::mutex> lock(mu_);
    if (stopping_) return std::nullopt;
    stream_ = stream;
    stream_open_ = true;
    formed_ = false;
    refusal_.reset();
    last_ping_.reset();
    close_reason_.clear();
  }
  stream->Start();
  Send(stream.get(), options_.registration);

  bool silent = false;
  bool leaving = false;
  bool stuck = false;
  {
    std::unique_lock<std::mutex> lock(mu_);
    const auto over = [this] { return !stream_open_ || stopping_ || shutdown_ || refusal_.has_value(); };
    bool late = false;
    while (!over() && !silent && !late && !stuck) {
      // Until the first ping nothing is promised; the check only has to be about as fine as the timeout.
      absl::Duration wait = options_.silence_timeout / 4;
      wait = std::min(wait, std::max(StuckAt() - absl::Now(), absl::ZeroDuration()));
      const bool was_leaving = leave_by_.has_value();
      if (was_leaving) wait = std::min(wait, *leave_by_ - absl::Now());
      changed_.wait_for(lock, absl::ToChronoNanoseconds(wait),
                        [&] { return over() || leave_by_.has_value() != was_leaving; });
      silent = last_ping_.has_value() && absl::Now() - last_heard_ > options_.silence_timeout;
      late = leave_by_.has_value() && absl::Now() >= *leave_by_;
      stuck = absl::Now() >= StuckAt();
    }
    leaving = stopping_ || shutdown_ || leave_by_.has_value();
  }
  EndEpoch(std::nullopt, "the stream to the coordinator ended");
  // A silent coordinator reads no farewell.
  stream->Close(silent ? absl::ZeroDuration() : options_.close_grace);

  const std::lock_guard<std::mutex> lock(mu_);
  stream_.reset();
  if (leaving || stopping_ || stuck) return std::nullopt;
  if (refusal_.has_value()) {
    LogWarning("the coordinator refused this rank",
               {{"reason", refusal_->reason}, {"permanent", refusal_->permanent ? "true" : "false"}});
    if (refusal_->permanent) return std::nullopt;
    return backoff.Jitter(options_.refused_delay);
  }
  LogWarning("lost the coordinator", {{"reason", silent ? "silence" : close_reason_}});
  if (formed_) backoff.Reset();
  return backoff.Next();
}

void Session::Stop() {
  {
    const std::lock_guard<std::mutex> lock(mu_);
    stopping_ = true;
  }
  EndEpoch(std::nullopt, "this rank is leaving");
  changed_.notify_all();
}

void Session::Leave(absl::Duration grace) {
  std::shared_ptr<CoordinatorStream> stream;
  {
    const std::lock_guard<std::mutex> lock(mu_);
    if (!leave_by_.has_value() && stream_open_) {
      leave_by_ = absl::Now() + grace;
      stream = stream_;
      changed_.notify_all();
    }
  }
  if (stream == nullptr) return Stop();
  Send(stream.get(), LeavingMessage{absl::ToDoubleSeconds(grace)});
}

void Session::OnMessage(CoordinatorMessage message) {
  {
    const std::lock_guard<std::mutex> lock(mu_);
    last_heard_ = absl::Now();
    if (std::holds_alternative<PingMessage>(message)) last_ping_ = last_heard_;
  }
  if (const auto* ping = std::get_if<PingMessage>(&message)) {
    Reply(PongMessage{ping->id});
  } else if (auto* form = std::get_if<FormMessage>(&message)) {
    OnForm(std::move(*form));
  } else if (auto* command = std::get_if<CommandMessage>(&message)) {
    OnCommand(std::move(*command));
  } else if (const auto* abort = std::get_if<AbortMessage>(&message)) {
    uint64_t term = 0;
    {
      const std::lock_guard<std::mutex> lock(mu_);
      if (epoch_ == 0 || epoch_ != abort->epoch) return;
      term = term_;
    }
    LogWarning("epoch aborted", {{"epoch", abort->epoch}, {"reason", abort->reason}});
    EndEpoch(term, absl::StrCat("the coordinator aborted the epoch: ", abort->reason));
  } else if (auto* refuse = std::get_if<RefuseMessage>(&message)) {
    const std::lock_guard<std::mutex> lock(mu_);
    refusal_ = std::move(*refuse);
    changed_.notify_all();
  } else if (const auto* shutdown = std::get_if<ShutdownMessage>(&message)) {
    const std::lock_guard<std::mutex> lock(mu_);
    tasks_.push_back(Task{.term = term_, .what = *shutdown});
    changed_.notify_all();
  }
}

void Session::OnClosed(absl::Status reason) {
  {
    const std::lock_guard<std::mutex> lock(mu_);
    stream_open_ = false;
    close_reason_ = reason.ok() ? "the coordinator ended the stream" : reason.ToString();
  }
  EndEpoch(std::nullopt, "the stream to the coordinator broke");
  changed_.notify_all();
}

void Session::OnForm(FormMessage form) {
  EndEpoch(std::nullopt, absl::StrCat("epoch ", form.epoch, " begins"));
  if (form.epoch == 0 || form.world_size != options_.registration.world_size) {
    Reply(FaultMessage{
        form.epoch,
        absl::StrCat("Form with epoch ", form.epoch, " and world_size ", form.world_size,
                     "; expected an epoch above 0 and world_size ", options_.registration.world_size)});
    return;
  }
  const std::lock_guard<std::mutex> lock(mu_);
  if (stopping_) return;
  formed_ = true;
  epoch_ = form.epoch;
  next_number_ = 1;
  tasks_.push_back(Task{.term = ++term_, .what = std::move(form)});
  changed_.notify_all();
}

void Session::OnCommand(CommandMessage command) {
  std::string fault;
  uint64_t term = 0;
  const uint64_t epoch = command.epoch;
  {
    const std::lock_guard<std::mutex> lock(mu_);
    // Of an epoch that is over: it was under way when the epoch ended.
    if (epoch_ == 0 || epoch != epoch_) return;
    term = term_;
    if (command.number != next_number_) {
      fault = absl::StrCat("command ", command.number, " came when ", next_number_, " was due");
    } else if (tasks_.size() >= options_.max_queued_commands) {
      fault = absl::StrCat("command ", command.number, " came while ", tasks_.size(), " wait; the limit is ",
                           options_.max_queued_commands);
    } else {
      ++next_number_;
      tasks_.push_back(Task{.term = term, .what = std::move(command)});
      changed_.notify_all();
    }
  }
  if (!fault.empty()) Fail(term, epoch, fault);
}

void Session::RunExecutor(Engine* engine) {
  while (true) {
    Task task;
    {
      std::unique_lock<std::mutex> lock(mu_);
      changed_.wait(lock, [this] { return stopping_ || !tasks_.empty(); });
      if (stopping_) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
      if (std::holds_alternative<ShutdownMessage>(task.what)) {
        LogInfo("the coordinator asked this rank to exit");
        shutdown_ = true;
        changed_.notify_all();
        return;
      }
      executing_ = true;
    }
    if (const auto* form = std::get_if<FormMessage>(&task.what)) {
      ExecuteForm(engine, task.term, *form);
    } else {
      ExecuteCommand(engine, task.term, std::get<CommandMessage>(task.what));
    }
    const std::lock_guard<std::mutex> lock(mu_);
    executing_ = false;
    outlived_ = absl::InfiniteFuture();
  }
}

void Session::ExecuteForm(Engine* engine, uint64_t term, const FormMessage& form) {
  absl::StatusOr<std::unique_ptr<Collective>> made =
      factory_(form, [this, term] { return !IsCurrent(term); });
  if (!made.ok()) {
    return Fail(term, form.epoch, absl::StrCat("cannot join the collectives: ", made.status().message()));
  }
  const std::shared_ptr<Collective> collective = *std::move(made);
  {
    const std::lock_guard<std::mutex> lock(mu_);
    if (!IsCurrentLocked(term)) return;
    collective_ = collective;
  }
  absl::Status status = engine->Attach(collective.get());
  if (status.ok()) status = engine->WarmUp();
  if (!status.ok()) return Fail(term, form.epoch, absl::StrCat("warm-up failed: ", status.message()));
  LogInfo("epoch formed", {{"epoch", form.epoch}, {"world_size", form.world_size}});
  SendFrom(term, ReadyMessage{form.epoch});
}

void Session::ExecuteCommand(Engine* engine, uint64_t term, const CommandMessage& command) {
  std::shared_ptr<Collective> in_use;  // kept alive while the engine may be inside it
  {
    const std::lock_guard<std::mutex> lock(mu_);
    if (!IsCurrentLocked(term)) return;
    in_use = collective_;
  }
  DoneMessage done{.epoch = command.epoch, .number = command.number, .results = {}};
  absl::Status status;
  if (const auto* admit = std::get_if<AdmitCommand>(&command.command)) {
    LogInfo("request admitted", {{"request_id", absl::StrFormat("%016x", admit->plan.request_id)},
                                 {"trace_id", TraceIdOf(admit->plan)},
                                 {"epoch", command.epoch}});
    status = engine->Admit(admit->plan);
  } else if (const auto* iterate = std::get_if<IterateCommand>(&command.command)) {
    absl::StatusOr<std::vector<WorkResult>> results = engine->Iterate(iterate->work);
    if (results.ok()) {
      done.results = *std::move(results);
    } else {
      status = results.status();
    }
  } else {
    status = engine->Release(std::get<ReleaseCommand>(command.command).request_id);
  }
  if (!status.ok()) {
    return Fail(term, command.epoch, absl::StrCat("command ", command.number, ": ", status.message()));
  }
  SendFrom(term, std::move(done));
}

bool Session::EndEpoch(std::optional<uint64_t> term, const std::string& reason) {
  std::shared_ptr<Collective> ended;
  {
    const std::lock_guard<std::mutex> lock(mu_);
    if (epoch_ == 0 || (term.has_value() && *term != term_)) return false;
    epoch_ = 0;
    if (executing_) outlived_ = std::min(outlived_, absl::Now());
    ended = std::move(collective_);
    std::erase_if(tasks_,
                  [](const Task& task) { return !std::holds_alternative<ShutdownMessage>(task.what); });
  }
  if (ended != nullptr) ended->Abort(absl::CancelledError(reason));
  return true;
}

void Session::Fail(uint64_t term, uint64_t epoch, const std::string& reason) {
  std::shared_ptr<CoordinatorStream> stream;
  {
    // The stream of the epoch that failed; by the time of sending there may be another one.
    const std::lock_guard<std::mutex> lock(mu_);
    stream = stream_;
  }
  // Of an epoch that was over already, the failure is a consequence and nobody's news.
  if (!EndEpoch(term, reason)) return;
  LogError("epoch failed", {{"epoch", epoch}, {"reason", reason}});
  Send(stream.get(), FaultMessage{epoch, reason});
}

bool Session::IsCurrentLocked(uint64_t term) const { return epoch_ != 0 && term == term_; }

bool Session::IsCurrent(uint64_t term) {
  const std::lock_guard<std::mutex> lock(mu_);
  return IsCurrentLocked(term);
}

void Session::Send(CoordinatorStream* stream, RankMessage message) {
  if (stream == nullptr) return;
  if (const absl::Status sent = stream->Send(std::move(message)); !sent.ok()) {
    LogWarning("message to the coordinator not sent", {{"reason", sent.message()}});
  }
}

void Session::SendFrom(uint64_t term, RankMessage message) {
  std::shared_ptr<CoordinatorStream> stream;
  {
    const std::lock_guard<std::mutex> lock(mu_);
    if (!IsCurrentLocked(term)) return;
    stream = stream_;
  }
  Send(stream.get(), std::move(message));
}

void Session::Reply(RankMessage message) {
  std::shared_ptr<CoordinatorStream> stream;
  {
    const std::lock_guard<std::mutex> lock(mu_);
    stream = stream_;
  }
  Send(stream.get(), std::move(message));
}

}  // namespace lancet
