#include "coordinator/dispatch/dispatcher_core.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/logging.h"
#include "common/model_config.h"

namespace lancet {
namespace {

CallStatus Failed(absl::Status status) { return CallStatus{std::move(status), std::nullopt}; }

std::string Seconds(absl::Duration duration) {
  return absl::StrFormat("%.3f", absl::ToDoubleSeconds(duration));
}

Registry::Options WithFingerprint(Registry::Options options, const std::string& fingerprint) {
  options.fingerprint = fingerprint;
  return options;
}

}  // namespace

std::string RequestIdText(uint64_t id) { return absl::StrFormat("%016x", id); }

DispatcherCore::DispatcherCore(Options options)
    : options_(std::move(options)),
      registry_(WithFingerprint(options_.registry, options_.fingerprint), this),
      queue_(options_.max_queue, options_.ageing) {}

// --- Requests. ---

CallStatus DispatcherCore::CheckNew(const NewRequest& request, absl::Time now) const {
  if (draining_) return Failed(absl::UnavailableError("the server drains; it takes no new work"));
  if (request.deadline <= now)
    return Failed(absl::DeadlineExceededError("the deadline passed before work began"));
  const int64_t max_latents = MaxLatents();
  if (max_latents == 0) return Failed(absl::UnavailableError("no healthy group of workers"));
  GenerateParams params;
  params.width = request.plan.target.latent_width * kPixelsPerLatent;
  params.height = request.plan.target.latent_height * kPixelsPerLatent;
  if (absl::Status fits = CheckFits(params, max_latents); !fits.ok()) return Failed(std::move(fits));
  if (static_cast<int>(calls_.size()) >= options_.max_calls) {
    return CallStatus{
        absl::ResourceExhaustedError(absl::StrCat("too many calls: the limit is ", options_.max_calls)),
        estimate_.RetryDelay(1)};
  }
  return CallStatus{};
}

void DispatcherCore::Submit(NewRequest request, absl::Time now) {
  auto call = std::make_unique<Call>();
  RequestState& state = call->state;
  state.id = request.plan.request_id;
  state.priority = request.priority;
  state.arrival = request.arrival;
  state.deadline = request.deadline;
  state.num_latents = request.plan.target.num_latents();
  state.num_prefix_blocks = static_cast<int32_t>(request.plan.prefix.size());
  state.num_steps = request.plan.sampler.num_steps;
  CallStatus status = CheckNew(request, now);
  call->sampler = request.plan.sampler;
  call->seed = request.plan.seed;
  call->width = request.plan.target.latent_width * kPixelsPerLatent;
  call->height = request.plan.target.latent_height * kPixelsPerLatent;
  call->plan = std::move(request.plan);
  call->output_format = request.output_format;
  call->warnings = std::move(request.warnings);
  call->stream = std::move(request.stream);
  call->preview = request.preview;
  if (call->preview.has_value()) {
    state.preview_every = call->preview->every_n_steps;
    state.preview_method = call->preview->method;
    call->previews = std::make_shared<PreviewSlot>();
  }
  Call& added = *(calls_[state.id] = std::move(call));
  if (status.status.ok() && added.stream->cancelled())
    status.status = absl::CancelledError("the client went away");
  if (status.status.ok()) {
    status.status = queue_.Push(&added.state);
    if (!status.status.ok()) {
      const std::vector<const RequestState*> waiting = queue_.InOrder(now);
      status.retry_after = estimate_.RetryDelay(WorkAhead(waiting) / std::max<int64_t>(1, waiting.size()));
    }
  }
  if (!status.status.ok()) End(added, std::move(status), now);
  Pump(now);
}

void DispatcherCore::Cancel(uint64_t id, absl::Time now) {
  const auto found = calls_.find(id);
  if (found == calls_.end()) return;
  End(*found->second, Failed(absl::CancelledError("the client went away")), now);
  Pump(now);
}

void DispatcherCore::OnCallDone(uint64_t id, absl::Time now) {
  const auto found = calls_.find(id);
  if (found == calls_.end()) return;
  // Ends what is not ended: the transport broke before the outcome was known.
  End(*found->second, Failed(absl::CancelledError("the connection broke")), now);
  calls_.erase(found);
  Pump(now);
}

void DispatcherCore::Leave(Call& call, absl::Time now) {
  if (call.state.phase == RequestPhase::kQueued) queue_.Remove(call.state.id);
  if (call.group != nullptr) {
    std::erase(turns_[call.group].running, &call);
    if (call.group->serving()) call.group->session()->Release(call.state.id, now);
    call.group = nullptr;
  }
  call.state.phase = RequestPhase::kFinished;
}

void DispatcherCore::End(Call& call, CallStatus status, absl::Time now) {
  if (call.ended) return;
  call.ended = true;
  Leave(call, now);
  LogOutcome(call, status.status, now);
  call.stream->End(std::move(status));
}

void DispatcherCore::EndAll(const absl::Status& status, absl::Time now, bool queued_only) {
  for (auto& [id, call] : calls_) {
    if (queued_only && call->state.phase != RequestPhase::kQueued) continue;
    End(*call, Failed(status), now);
  }
}

// --- Work. ---

void DispatcherCore::Pump(absl::Time now) {
  for (const auto& [name, group] : registry_.groups()) {
    if (!group->serving()) continue;
    Turns& turns = turns_[group.get()];
    StartWaiting(*group, turns, now);
    while (group->session()->CanIterate()) {
      GroupState state{.running = {}, .last_turn = turns.last_turn};
      for (const Call* call : turns.running) state.running.push_back(&call->state);
      const std::optional<Work> work = PickWork(state);
      if (!work.has_value()) break;
      Call& call = *calls_.at(work->request_id);
      ++call.state.issued;
      turns.last_turn = call.state.turn;
      group->session()->Iterate({*work}, now);
    }
  }
  TellPositions(now);
  TellReadiness();
}

void DispatcherCore::StartWaiting(Group& group, Turns& turns, absl::Time now) {
  GroupState state{.running = {},
                   .last_turn = turns.last_turn,
                   .max_running = options_.max_active,
                   .max_latents = group.max_latents()};
  for (const Call* call : turns.running) state.running.push_back(&call->state);
  for (const uint64_t id : PickToStart(queue_.InOrder(now), state, now)) {
    // One command for the admission, one left for an iteration; the rest starts when acknowledgements come
    // in.
    if (!group.session()->CanSend(2)) return;
    Start(*calls_.at(id), group, turns, now);
  }
}

void DispatcherCore::Start(Call& call, Group& group, Turns& turns, absl::Time now) {
  queue_.Remove(call.state.id);
  call.state.phase = RequestPhase::kRunning;
  call.state.turn = next_turn_++;
  call.group = &group;
  call.group_name = group.name();
  call.started = now;
  call.timings.queue = now - call.state.arrival;
  turns.running.push_back(&call);
  group.session()->Admit(std::move(call.plan), now);
  call.stream->Push(StartedEvent{RequestIdText(call.state.id), call.seed, call.width, call.height,
                                 call.state.num_steps, std::move(call.warnings)});
}

void DispatcherCore::OnFinished(Group& group, GroupSession::Finished finished) {
  estimate_.AddIteration(finished.took);
  for (WorkResult& result : finished.results) {
    const auto found = calls_.find(result.request_id);
    // A request that left in the meantime: its last iterations were under way.
    if (found == calls_.end() || found->second->group != &group) continue;
    OnResult(*found->second, std::move(result), now_);
  }
}

void DispatcherCore::OnResult(Call& call, WorkResult result, absl::Time now) {
  ++call.state.completed;
  const absl::Duration took = absl::Seconds(result.seconds);
  switch (result.kind) {
    case WorkKind::kPrefill:
      call.timings.prefill += took;
      return;
    case WorkKind::kDenoise: {
      call.timings.denoise += took;
      const int64_t turns = std::max<int64_t>(1, turns_[call.group].running.size());
      const int64_t left = call.state.total_work() - call.state.completed;
      call.stream->Push(ProgressEvent{call.state.steps_done(), call.state.num_steps, now - call.started,
                                      estimate_.ForIterations(left * turns).value_or(absl::ZeroDuration())});
      if (result.preview.has_value() && call.preview.has_value()) {
        options_.encoder->EncodePreview(call.previews, call.state.steps_done(), *std::move(result.preview),
                                        *call.preview, call.stream);
      }
      return;
    }
    case WorkKind::kDecode: {
      call.timings.decode += took;
      Leave(call, now);
      options_.encoder->EncodeResult(*std::move(result.image), call.output_format,
                                     [post = options_.post, this, id = call.state.id](
                                         absl::StatusOr<EncodedImage> image, absl::Duration encoding) {
                                       // Shared because a std::function must be copyable.
                                       auto shared =
                                           std::make_shared<absl::StatusOr<EncodedImage>>(std::move(image));
                                       post([this, id, shared, encoding](absl::Time then) {
                                         OnEncoded(id, std::move(*shared), encoding, then);
                                         Pump(then);
                                       });
                                     });
      return;
    }
  }
}

void DispatcherCore::OnEncoded(uint64_t id, absl::StatusOr<EncodedImage> image, absl::Duration took,
                               absl::Time now) {
  const auto found = calls_.find(id);
  if (found == calls_.end() || found->second->ended) return;
  Call& call = *found->second;
  if (!image.ok()) {
    LogError("result not encoded", {{"request_id", RequestIdText(id)}, {"reason", image.status().message()}});
    End(call, Failed(absl::InternalError(absl::StrCat("request ", RequestIdText(id), " failed"))), now);
    return;
  }
  call.timings.encode = took;
  call.timings.total = now - call.state.arrival;
  call.stream->Push(ResultEvent{*std::move(image), call.seed, call.timings, options_.fingerprint});
  End(call, CallStatus{}, now);
}

// --- Groups. ---

void DispatcherCore::OnServing(Group& group) { turns_[&group] = Turns{}; }

void DispatcherCore::OnLost(Group& group, const absl::Status& reason) {
  const auto found = turns_.find(&group);
  if (found != turns_.end()) {
    const Turns turns = std::move(found->second);
    turns_.erase(found);
    for (Call* call : turns.running) {
      call->group = nullptr;
      // The reason is the server's business: hosts and files are in it.
      LogWarning("request lost with its group", {{"request_id", RequestIdText(call->state.id)},
                                                 {"group", group.name()},
                                                 {"reason", reason.message()}});
      End(*call, Failed(absl::UnavailableError("the workers that drew this picture were lost; try again")),
          now_);
    }
  }
  if (!AnyServing())
    EndAll(absl::UnavailableError("no healthy group of workers"), now_, /*queued_only=*/true);
}

void DispatcherCore::OnConnected(std::shared_ptr<RankLink> link, absl::Time now) {
  now_ = now;
  registry_.OnConnected(std::move(link), now);
}

void DispatcherCore::OnMessage(const std::shared_ptr<RankLink>& link, RankMessage message, absl::Time now) {
  now_ = now;
  registry_.OnMessage(link, std::move(message), now);
  Pump(now);
}

void DispatcherCore::OnClosed(const std::shared_ptr<RankLink>& link, const absl::Status& reason,
                              absl::Time now) {
  now_ = now;
  registry_.OnClosed(link, reason, now);
  Pump(now);
}

void DispatcherCore::Tick(absl::Time now) {
  now_ = now;
  for (auto& [id, call] : calls_) {
    if (call->state.deadline <= now) {
      End(*call, Failed(absl::DeadlineExceededError("the request's deadline passed")), now);
    }
    if (call->stream->Stalled(now) > options_.client_stall_timeout) {
      End(*call, Failed(absl::CancelledError("the client does not read")), now);
      call->stream->CutWriter();
    }
  }
  registry_.Tick(now);
  Pump(now);
}

void DispatcherCore::Drain() {
  draining_ = true;
  TellReadiness();
}

void DispatcherCore::Stop(absl::Time now) {
  Drain();
  EndAll(absl::UnavailableError("the server stops"), now, /*queued_only=*/false);
}

// --- What others are told. ---

bool DispatcherCore::AnyServing() const {
  return std::any_of(registry_.groups().begin(), registry_.groups().end(),
                     [](const auto& entry) { return entry.second->serving(); });
}

int64_t DispatcherCore::MaxLatents() const {
  int64_t most = 0;
  for (const auto& [name, group] : registry_.groups()) {
    if (group->serving()) most = std::max(most, group->max_latents());
  }
  return most;
}

int64_t DispatcherCore::WorkAhead(absl::Span<const RequestState* const> waiting) const {
  int64_t work = 0;
  for (const auto& [group, turns] : turns_) {
    for (const Call* call : turns.running) work += call->state.total_work() - call->state.completed;
  }
  for (const RequestState* request : waiting) work += request->total_work();
  return work / std::max<int64_t>(1, turns_.size());
}

void DispatcherCore::TellPositions(absl::Time now) {
  const std::vector<const RequestState*> order = queue_.InOrder(now);
  for (size_t i = 0; i < order.size(); ++i) {
    Call& call = *calls_.at(order[i]->id);
    if (call.position == static_cast<int32_t>(i)) continue;
    call.position = static_cast<int32_t>(i);
    call.stream->Push(
        QueuedEvent{call.position, estimate_.ForIterations(WorkAhead(absl::MakeConstSpan(order).first(i)))});
  }
}

void DispatcherCore::TellReadiness() {
  const bool serving = !draining_ && AnyServing();
  if (serving == told_serving_) return;
  told_serving_ = serving;
  LogInfo(serving ? "ready" : "not ready");
  options_.on_readiness(serving);
}

std::vector<GroupInfo> DispatcherCore::Groups() const {
  std::vector<GroupInfo> groups;
  for (const auto& [name, group] : registry_.groups()) {
    const auto turns = turns_.find(group.get());
    const size_t active = turns == turns_.end() ? 0 : turns->second.running.size();
    groups.push_back(
        {name, group->world_size(), group->serving(), static_cast<int>(active), group->device()});
  }
  return groups;
}

void DispatcherCore::LogOutcome(const Call& call, const absl::Status& status, absl::Time now) const {
  const bool ran = call.state.turn > 0;
  Log(absl::IsInternal(status) ? LogLevel::kError : LogLevel::kInfo, "request",
      {{"request_id", RequestIdText(call.state.id)},
       {"code", absl::StatusCodeToString(status.code())},
       {"group", ran ? call.group_name : "-"},
       {"seed", call.seed},
       {"width", call.width},
       {"height", call.height},
       {"steps_done", call.state.steps_done()},
       {"steps", call.state.num_steps},
       {"queue_s", Seconds(ran ? call.timings.queue : now - call.state.arrival)},
       {"prefill_s", Seconds(call.timings.prefill)},
       {"denoise_s", Seconds(call.timings.denoise)},
       {"decode_s", Seconds(call.timings.decode)},
       {"encode_s", Seconds(call.timings.encode)},
       {"total_s", Seconds(now - call.state.arrival)}});
}

}  // namespace lancet
