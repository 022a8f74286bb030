#include "coordinator/dispatch/dispatcher_core.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/logging.h"
#include "common/model_config.h"
#include "common/plan_resume.h"

namespace lancet {
namespace {

CallStatus Failed(absl::Status status, RejectReason reason = RejectReason::kNone) {
  return CallStatus{std::move(status), std::nullopt, reason};
}

Registry::Options WithFingerprint(Registry::Options options, const std::string& fingerprint) {
  options.fingerprint = fingerprint;
  return options;
}

}  // namespace

DispatcherCore::DispatcherCore(Options options)
    : options_(std::move(options)),
      observer_(options_.observer != nullptr ? options_.observer : &no_observer_),
      registry_(WithFingerprint(options_.registry, options_.fingerprint), this),
      queue_(options_.max_queue, options_.ageing) {}

// --- Requests. ---

CallStatus DispatcherCore::CheckNew(const NewRequest& request, const RequestShape& shape,
                                    absl::Time now) const {
  if (draining_)
    return {absl::UnavailableError("the server drains; it takes no new work"), estimate_.RetryDelay(1),
            RejectReason::kDraining};
  if (request.deadline <= now)
    return Failed(absl::DeadlineExceededError("the deadline passed before work began"), RejectReason::kLate);
  if (!AnyServing()) {
    return {absl::UnavailableError("no healthy group of workers"), estimate_.RetryDelay(1),
            RejectReason::kNoGroup};
  }
  if (absl::Status fits = CheckFitsSome(shape); !fits.ok())
    return Failed(std::move(fits), RejectReason::kTooLarge);
  if (static_cast<int>(calls_.size() - kept_.size()) >= options_.max_calls) {
    return CallStatus{
        absl::ResourceExhaustedError(absl::StrCat("too many calls: the limit is ", options_.max_calls)),
        estimate_.RetryDelay(1), RejectReason::kTooManyCalls};
  }
  if (const int most = request.origin.max_waiting; most > 0 && WaitingOf(request.origin.caller) >= most) {
    return CallStatus{absl::ResourceExhaustedError(
                          absl::StrCat("too many requests of this token wait: the limit is ", most)),
                      estimate_.RetryDelay(1), RejectReason::kTokenLimit};
  }
  return CallStatus{};
}

int DispatcherCore::WaitingOf(const std::string& caller) const {
  return static_cast<int>(std::count_if(calls_.begin(), calls_.end(), [&caller](const auto& entry) {
    return entry.second->state.phase == RequestPhase::kQueued && entry.second->origin.caller == caller;
  }));
}

void DispatcherCore::Submit(NewRequest request, absl::Time now) {
  // A key is its token's: nobody joins a stranger's request.
  if (!request.idempotency_key.empty()) {
    request.idempotency_key = absl::StrCat(request.origin.caller, "\n", request.idempotency_key);
    if (Join(request, now)) return;
  }
  auto call = std::make_unique<Call>();
  RequestState& state = call->state;
  state.id = request.plan.request_id;
  state.priority = request.priority;
  state.arrival = request.arrival;
  state.deadline = request.deadline;
  state.shape = ShapeOf(request.plan);
  CallStatus status = CheckNew(request, state.shape, now);
  const std::function<CallStatus(absl::Time)> charge = std::move(request.charge);
  call->origin = std::move(request.origin);
  call->input = request.input;
  call->text = std::move(request.text);
  call->answer = request.plan.answer;
  for (const PrefixBlock& block : request.plan.prefix)
    call->prompt_tokens += static_cast<int32_t>(block.rows());
  call->sampler = request.plan.sampler;
  call->seed = request.plan.seed;
  call->width = request.plan.target.latent_width * kPixelsPerLatent;
  call->height = request.plan.target.latent_height * kPixelsPerLatent;
  call->plan = std::move(request.plan);
  call->output_format = request.output_format;
  call->warnings = std::move(request.warnings);
  const std::shared_ptr<EventStream> stream = std::move(request.stream);
  call->key = std::move(request.idempotency_key);
  call->digest = request.digest;
  call->audience = std::make_shared<Audience>(/*keeps=*/!call->key.empty());
  call->audience->Join(stream);
  call->clients.push_back({state.id, stream});
  if (!call->key.empty()) keys_[call->key] = state.id;
  call->preview = request.preview;
  if (call->preview.has_value()) {
    state.preview_every = call->preview->every_n_steps;
    state.preview_method = call->preview->method;
    call->previews = std::make_shared<PreviewSlot>();
  }
  Call& added = *(calls_[state.id] = std::move(call));
  if (status.status.ok() && stream->cancelled()) status.status = absl::CancelledError("the client went away");
  if (status.status.ok() && charge != nullptr) status = charge(now);
  if (status.status.ok()) {
    status.status = queue_.Push(&added.state);
    if (!status.status.ok()) {
      status.reason = RejectReason::kQueueFull;
      const std::vector<const RequestState*> waiting = queue_.InOrder(now);
      status.retry_after = estimate_.RetryDelay(WorkAhead(waiting) / std::max<int64_t>(1, waiting.size()));
    }
  }
  if (!status.status.ok()) End(added, std::move(status), now);
  Pump(now);
}

void DispatcherCore::Leave(Call& call, absl::Time now) {
  if (call.state.phase == RequestPhase::kQueued) queue_.Remove(call.state.id);
  if (call.group != nullptr) {
    std::erase(loads_[call.group].running, &call);
    if (call.group->serving()) call.group->session()->Release(call.state.id, now);
    call.group = nullptr;
  }
  call.state.phase = RequestPhase::kFinished;
}

void DispatcherCore::End(Call& call, CallStatus status, absl::Time now) {
  if (call.ended) return;
  call.ended = true;
  Leave(call, now);
  call.plan = {};
  call.snapshot.reset();
  TellOutcome(call, status, now);
  for (const Client& client : call.clients) {
    if (client.joined.has_value() && !client.left) TellJoined(call, client.id, *client.joined, status, now);
  }
  call.audience->End(status);
  KeepResult(call, status.status, now);
}

// --- Work. ---

void DispatcherCore::Pump(absl::Time now) {
  StartWaiting(now);
  for (const auto& [name, group] : registry_.groups()) {
    if (!group->serving()) continue;
    Load& load = loads_[group.get()];
    while (group->session()->CanIterate()) {
      Iteration iteration = PickIteration(StateOf(*group, load), now, options_.ageing);
      if (iteration.work.empty()) break;
      for (const Work& work : iteration.work) {
        RequestState& state = calls_.at(work.request_id)->state;
        state.Issue(work);
        if (work.snapshot) state.snapshot_asked = now;
      }
      const IterationSize size = SizeOf(iteration);
      load.sizes.push_back(size);
      load.tokens_left_out = iteration.tokens_left_out;
      observer_->OnIterationSent(name, iteration.rows, static_cast<int64_t>(iteration.work.size()));
      group->session()->Iterate(std::move(iteration.work), load.patience.For(size), now);
    }
  }
  TakeOffLeavingGroups(now);
  TellPositions(now);
  TellReadiness();
}

IterationSize DispatcherCore::SizeOf(const Iteration& iteration) const {
  IterationSize size{.rows = iteration.rows};
  for (const Work& work : iteration.work) {
    const RequestShape& shape = calls_.at(work.request_id)->state.shape;
    if (work.kind == WorkKind::kEncodeVision) size.encoded_patches += shape.num_patches;
    if (work.kind == WorkKind::kEncodeLatents) size.encoded_latents += shape.num_latents;
    if (work.kind == WorkKind::kDecode || work.preview == PreviewMethod::kVae)
      size.decoded_latents += shape.num_latents;
  }
  return size;
}

void DispatcherCore::StartWaiting(absl::Time now) {
  std::vector<Group*> groups;
  for (const auto& [name, group] : registry_.groups()) {
    if (group->serving()) groups.push_back(group.get());
  }
  const std::vector<const RequestState*> waiting = queue_.InOrder(now);
  if (waiting.empty()) return;
  // A request that has no room may be overtaken for as long as it takes to rise by one level of priority.
  for (const Placement& placement :
       PlaceWaiting(waiting, StatesOfServing(), now, /*patience=*/options_.ageing)) {
    Group& group = *groups[placement.group];
    // One command for the admission, one left for an iteration; the rest starts when acknowledgements come
    // in.
    if (group.session()->CanSend(2)) Start(*calls_.at(placement.request_id), group, loads_[&group], now);
  }
}

void DispatcherCore::Start(Call& call, Group& group, Load& load, absl::Time now) {
  queue_.Remove(call.state.id);
  call.state.phase = RequestPhase::kRunning;
  call.group = &group;
  call.group_name = group.name();
  if (!options_.recovery.resume_anywhere) call.state.numerics = group.numerics();
  call.state.snapshot_every = call.answer.has_value() ? 0 : options_.recovery.snapshot_every;
  call.state.snapshot_age = options_.recovery.snapshot_age;
  call.state.snapshot_asked = now;
  load.running.push_back(&call);
  group.session()->Admit(PlanToCome(call), now);
  if (call.resumes > 0) {
    observer_->OnResumed(call.state.id);
    LogInfo("request goes on", {{"request_id", RequestIdText(call.state.id)},
                                {"trace_id", call.origin.trace.TraceId()},
                                {"group", group.name()},
                                {"step", call.state.first_step},
                                {"tokens", call.tokens.size()}});
    if (!call.answer.has_value()) TellProgress(call, now);
    return;
  }
  call.started = now;
  call.timings.queue = now - call.state.arrival;
  call.audience->Push(StartedEvent{RequestIdText(call.state.id), call.seed, call.width, call.height,
                                   call.state.shape.num_steps, std::move(call.warnings),
                                   call.state.shape.max_new_tokens, call.input});
}

void DispatcherCore::OnFinished(Group& group, GroupSession::Finished finished) {
  observer_->OnIterationDone(group.name(), finished.took);
  Load& load = loads_[&group];
  const size_t running = std::max<size_t>(load.running.size(), 1);
  load.cost.Add(load.sizes.front().rows, finished.took);
  load.patience.Add(load.sizes.front(), finished.took);
  load.sizes.pop_front();
  estimate_.AddIteration(finished.took, static_cast<int64_t>(finished.results.size()),
                         static_cast<int64_t>(running));
  for (size_t i = 0; i < finished.results.size(); ++i) {
    WorkResult& result = finished.results[i];
    const auto found = calls_.find(result.request_id);
    // A request that left in the meantime: its last iterations were under way.
    if (found == calls_.end() || found->second->group != &group) continue;
    OnResult(*found->second, finished.work[i], std::move(result), now_);
  }
}

void DispatcherCore::OnResult(Call& call, const Work& work, WorkResult result, absl::Time now) {
  call.state.Complete(work);
  const absl::Duration took = absl::Seconds(result.seconds);
  switch (result.kind) {
    case WorkKind::kEncodeVision:
    case WorkKind::kEncodeLatents:
      call.timings.input += took;
      return;
    case WorkKind::kPrefill:
      call.timings.prefill += took;
      return;
    case WorkKind::kDenoise:
      call.timings.denoise += took;
      TellProgress(call, now);
      if (result.snapshot.has_value() && result.snapshot->step == call.state.steps_done &&
          SnapshotFits(call.plan, *result.snapshot)) {
        call.snapshot = *std::move(result.snapshot);
      }
      if (call.hand_over) HandOver(call, /*at_once=*/false, now);
      if (result.preview.has_value() && call.preview.has_value()) {
        if (!std::exchange(call.told_preview, true)) {
          observer_->OnFirstPreview(call.state.id, call.origin.task, now - call.state.arrival);
        }
        call.state.previewed = work.index + 1;
        options_.encoder->EncodePreview(call.previews, work.index + 1, *std::move(result.preview),
                                        *call.preview, call.audience);
      }
      return;
    case WorkKind::kDecode:
      call.timings.decode += took;
      OnPicture(call, *std::move(result.image), now);
      return;
    case WorkKind::kAnswer:
      call.timings.answer += took;
      if (result.token.has_value()) OnToken(call, *result.token, now);
      return;
  }
}

void DispatcherCore::OnPicture(Call& call, RgbImage image, absl::Time now) {
  Leave(call, now);
  call.plan = {};
  call.snapshot.reset();
  options_.encoder->EncodeResult(std::move(image), call.output_format,
                                 [post = options_.post, this, id = call.state.id](
                                     absl::StatusOr<EncodedImage> encoded, absl::Duration encoding) {
                                   // Shared because a std::function must be copyable.
                                   auto shared =
                                       std::make_shared<absl::StatusOr<EncodedImage>>(std::move(encoded));
                                   post([this, id, shared, encoding](absl::Time then) {
                                     OnEncoded(id, std::move(*shared), encoding, then);
                                     Pump(then);
                                   });
                                 });
}

void DispatcherCore::OnToken(Call& call, const AnswerToken& token, absl::Time now) {
  call.tokens.push_back(token.id);
  const auto count = static_cast<int32_t>(call.tokens.size());
  if (count == 1) observer_->OnFirstToken(call.state.id, now - call.state.arrival);
  const bool stop = token.id == call.answer->stop_token_id;
  absl::StatusOr<std::string> text = stop ? std::string() : call.text->Add(token.id);
  if (!text.ok()) {
    const std::string id = RequestIdText(call.state.id);
    LogError(
        "token without text",
        {{"request_id", id}, {"trace_id", call.origin.trace.TraceId()}, {"reason", text.status().message()}});
    End(call, Failed(absl::InternalError(absl::StrCat("request ", id, " failed"))), now);
    return;
  }
  if (token.last) *text += call.text->Finish();
  if (!text->empty()) call.audience->Push(DeltaEvent{*std::move(text), count});
  if (!token.last) return;
  call.timings.total = now - call.state.arrival;
  call.audience->Push(TextResultEvent{call.text->text(), stop ? FinishReason::kStop : FinishReason::kLength,
                                      call.prompt_tokens, count, call.seed, call.timings,
                                      options_.fingerprint});
  End(call, CallStatus{}, now);
}

void DispatcherCore::OnEncoded(uint64_t id, absl::StatusOr<EncodedImage> image, absl::Duration took,
                               absl::Time now) {
  const auto found = calls_.find(id);
  if (found == calls_.end() || found->second->ended) return;
  Call& call = *found->second;
  if (!image.ok()) {
    LogError("result not encoded", {{"request_id", RequestIdText(id)},
                                    {"trace_id", call.origin.trace.TraceId()},
                                    {"reason", image.status().message()}});
    End(call, Failed(absl::InternalError(absl::StrCat("request ", RequestIdText(id), " failed"))), now);
    return;
  }
  call.timings.encode = took;
  call.timings.total = now - call.state.arrival;
  call.audience->Push(ResultEvent{*std::move(image), call.seed, call.timings, options_.fingerprint});
  End(call, CallStatus{}, now);
}

// --- Groups. ---

void DispatcherCore::OnServing(Group& group) {
  Load& load = loads_[&group] = Load{};
  load.patience = IterationPatience(options_.patience);
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
    for (Client& client : call->clients) {
      if (client.stream->Stalled(now) <= options_.client_stall_timeout) continue;
      LeaveAudience(*call, client, absl::CancelledError("the client does not read"), now);
      client.stream->CutWriter();
    }
    if (now - call->orphaned > options_.idempotency.orphan_wait) {
      End(*call, Failed(absl::CancelledError("the client went away and nobody joined")), now);
    }
  }
  registry_.Tick(now);
  EndHomeless(now);
  ExpireResults(now);
  Pump(now);
}

void DispatcherCore::Drain() {
  draining_ = true;
  TellReadiness();
}

void DispatcherCore::Stop(absl::Time now) {
  Drain();
  for (auto& [id, call] : calls_) {
    End(*call, {absl::UnavailableError("the server stops"), estimate_.RetryDelay(1)}, now);
  }
}

// --- What others are told. ---

bool DispatcherCore::AnyServing() const {
  return std::any_of(registry_.groups().begin(), registry_.groups().end(),
                     [](const auto& entry) { return TakesWork(*entry.second); });
}

GroupLimits DispatcherCore::LimitsOf(const Group& group) const {
  GroupLimits limits = group.limits();
  limits.max_requests = std::min(limits.max_requests, options_.max_active);
  limits.max_rows = std::min(limits.max_rows, options_.row_budget);
  return limits;
}

GroupState DispatcherCore::StateOf(const Group& group, const Load& load) const {
  GroupState state{.running = {},
                   .limits = LimitsOf(group),
                   .tokens_left_out = load.tokens_left_out,
                   .leaving = group.leaving(),
                   .numerics = group.numerics(),
                   .cost = load.cost.cost()};
  for (const Call* call : load.running) state.running.push_back(&call->state);
  return state;
}

std::vector<GroupState> DispatcherCore::StatesOfServing() const {
  std::vector<GroupState> states;
  for (const auto& [name, group] : registry_.groups()) {
    if (!group->serving()) continue;
    const auto load = loads_.find(group.get());
    states.push_back(StateOf(*group, load == loads_.end() ? Load() : load->second));
  }
  return states;
}

absl::Status DispatcherCore::CheckFitsSome(const RequestShape& shape) const {
  absl::Status status = absl::FailedPreconditionError("no healthy group of workers");
  for (const auto& [name, group] : registry_.groups()) {
    if (!TakesWork(*group)) continue;
    status = CheckFits(shape, LimitsOf(*group));
    if (status.ok()) return status;
  }
  return status;
}

int64_t DispatcherCore::WorkAhead(absl::Span<const RequestState* const> waiting) const {
  int64_t work = 0;
  int64_t places = 0;
  for (const auto& [group, load] : loads_) {
    for (const Call* call : load.running) work += call->state.pieces_left();
    places += LimitsOf(*group).max_requests;
  }
  for (const RequestState* request : waiting) work += request->num_pieces();
  return work / std::max<int64_t>(1, places);
}

void DispatcherCore::TellProgress(Call& call, absl::Time now) {
  call.audience->Push(
      ProgressEvent{call.state.steps_done, call.state.shape.num_steps, now - call.started,
                    estimate_.ForPieces(call.state.pieces_left()).value_or(absl::ZeroDuration())});
}

void DispatcherCore::TellPositions(absl::Time now) {
  const std::vector<const RequestState*> order = queue_.InOrder(now);
  for (size_t i = 0; i < order.size(); ++i) {
    Call& call = *calls_.at(order[i]->id);
    if (call.position == static_cast<int32_t>(i)) continue;
    call.position = static_cast<int32_t>(i);
    call.audience->Push(
        QueuedEvent{call.position, estimate_.ForIterations(WorkAhead(absl::MakeConstSpan(order).first(i)))});
  }
}

void DispatcherCore::TellReadiness() {
  const bool serving = !draining_ && AnyServing();
  const bool serving_vision = serving && std::any_of(loads_.begin(), loads_.end(), [](const auto& entry) {
                                return TakesWork(*entry.first) && entry.first->limits().has_vision;
                              });
  if (serving == told_serving_ && serving_vision == told_serving_vision_) return;
  if (serving != told_serving_) LogInfo(serving ? "ready" : "not ready");
  told_serving_ = serving;
  told_serving_vision_ = serving_vision;
  options_.on_readiness(serving, serving_vision);
}

std::vector<GroupInfo> DispatcherCore::Groups() const {
  std::vector<GroupInfo> groups;
  for (const auto& [name, group] : registry_.groups()) {
    const GroupLimits limits = group->limits();
    GroupInfo info{.name = name,
                   .world_size = group->world_size(),
                   .serving = group->serving(),
                   .active_requests = 0,
                   .device = group->device(),
                   .has_vision = limits.has_vision,
                   .leaving = group->leaving(),
                   .ranks_there = {},
                   .cache_tokens = 0,
                   .max_cache_tokens = limits.cache_tokens};
    for (int rank = 0; rank < group->world_size(); ++rank) info.ranks_there.push_back(group->has_rank(rank));
    if (const auto load = loads_.find(group.get()); load != loads_.end()) {
      info.active_requests = static_cast<int>(load->second.running.size());
      for (const Call* call : load->second.running) info.cache_tokens += call->state.shape.cache_tokens;
    }
    groups.push_back(std::move(info));
  }
  return groups;
}

ServiceStatus DispatcherCore::Status(absl::Time now) const {
  ServiceStatus status{.time = now,
                       .groups = Groups(),
                       .waiting = 0,
                       .running = 0,
                       .calls = static_cast<int>(calls_.size() - kept_.size())};
  for (const auto& [id, call] : calls_) {
    if (call->state.phase == RequestPhase::kQueued) ++status.waiting;
    if (call->state.phase == RequestPhase::kRunning) ++status.running;
  }
  return status;
}

void DispatcherCore::TellOutcome(const Call& call, const CallStatus& status, absl::Time now) const {
  RequestOutcome outcome;
  outcome.id = call.state.id;
  outcome.origin = call.origin;
  outcome.status = status.status;
  outcome.reason = status.reason;
  outcome.group = call.group_name;
  outcome.seed = call.seed;
  outcome.width = call.width;
  outcome.height = call.height;
  outcome.steps_done = call.state.steps_done;
  outcome.steps = call.state.shape.num_steps;
  outcome.answer_tokens = static_cast<int32_t>(call.tokens.size());
  outcome.resumes = call.resumes;
  outcome.timings = call.timings;
  outcome.timings.total = now - call.state.arrival;
  if (call.group_name.empty()) outcome.timings.queue = outcome.timings.total;
  LogOutcome(outcome);
  observer_->OnOutcome(outcome);
}

void DispatcherCore::TellJoined(const Call& call, uint64_t id, const Joined& joined, const CallStatus& status,
                                absl::Time now) const {
  RequestOutcome outcome;
  outcome.id = id;
  outcome.joined = call.state.id;
  outcome.origin = joined.origin;
  outcome.status = status.status;
  outcome.reason = status.reason;
  outcome.timings.total = now - joined.arrival;
  LogOutcome(outcome);
  observer_->OnOutcome(outcome);
}

}  // namespace lancet
