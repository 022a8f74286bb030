// Of DispatcherCore: what happens to requests whose group is lost or leaves.
#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/logging.h"
#include "common/plan_resume.h"
#include "coordinator/dispatch/dispatcher_core.h"

namespace lancet {

RequestPlan DispatcherCore::PlanToCome(const Call& call) {
  if (call.plan.answer.has_value()) return ResumeAnswer(call.plan, call.tokens);
  RequestPlan plan = call.plan;
  plan.snapshot = call.snapshot;
  if (plan.snapshot.has_value() && plan.snapshot->step == plan.sampler.num_steps) {
    // Only the decode is left, which needs latents alone.
    plan.prefix.clear();
    plan.vision_image.reset();
    plan.condition_image.reset();
  }
  return plan;
}

void DispatcherCore::Requeue(Call& call, bool blamed) {
  ++call.resumes;
  call.group = nullptr;
  call.hand_over = false;
  call.homeless = absl::InfiniteFuture();
  int32_t kept = static_cast<int32_t>(call.tokens.size() - call.tokens_at_start);
  if (!call.answer.has_value())
    kept = call.snapshot.has_value() ? call.snapshot->step - call.state.first_step : 0;
  call.tokens_at_start = call.tokens.size();
  call.state.Restart(ShapeOf(PlanToCome(call)), kept, blamed);
  queue_.Restore(&call.state);
}

void DispatcherCore::OnLost(Group& group, const absl::Status& reason) {
  const auto found = loads_.find(&group);
  if (found == loads_.end()) return;
  const Load load = std::move(found->second);
  loads_.erase(found);
  if (!group.leaving()) observer_->OnGroupLost(group.name(), static_cast<int64_t>(load.running.size()));
  // One on trial is to blame if there is one; else it may have been any. A group that was told to end is not
  // blamed on anybody.
  const bool trial = std::any_of(load.running.begin(), load.running.end(),
                                 [](const Call* call) { return call->state.suspect(); });
  for (Call* call : load.running) {
    const bool blamed = !group.leaving() && (!trial || call->state.suspect());
    if (blamed) ++call->losses;
    const std::string id = RequestIdText(call->state.id);
    // The reason is the server's business: hosts and files are in it.
    LogWarning("request lost with its group", {{"request_id", id},
                                               {"trace_id", call->origin.trace.TraceId()},
                                               {"group", group.name()},
                                               {"losses", call->losses},
                                               {"steps_done", call->state.steps_done},
                                               {"reason", reason.message()}});
    if (call->losses >= options_.recovery.max_losses) {
      call->group = nullptr;
      End(*call,
          {absl::InternalError(absl::StrCat("request ", id, " failed: its workers died ", call->losses,
                                            " times while it ran")),
           std::nullopt},
          now_);
    } else {
      Requeue(*call, blamed);
    }
  }
}

void DispatcherCore::OnLeaving(Group& group, absl::Time until) {
  const auto found = loads_.find(&group);
  if (found == loads_.end()) return;
  Load& load = found->second;
  load.leave_by = std::min(load.leave_by, until - options_.recovery.hand_over_margin);
  const std::vector<Call*> running = load.running;
  for (Call* call : running) {
    const std::optional<absl::Duration> rest = estimate_.ForPieces(call->state.pieces_left());
    if (rest.has_value() && now_ + *rest <= load.leave_by) continue;  // it will be done in time
    call->hand_over = true;
    call->state.snapshot_every = 1;
    HandOver(*call, /*at_once=*/false, now_);
  }
}

void DispatcherCore::HandOver(Call& call, bool at_once, absl::Time now) {
  const bool fresh = call.answer.has_value() || call.state.steps_done == call.state.first_step ||
                     (call.snapshot.has_value() && call.snapshot->step == call.state.steps_done);
  if (call.group == nullptr || (!fresh && !at_once)) return;
  LogInfo("request handed over", {{"request_id", RequestIdText(call.state.id)},
                                  {"trace_id", call.origin.trace.TraceId()},
                                  {"group", call.group->name()}});
  Leave(call, now);
  Requeue(call, /*blamed=*/false);
}

void DispatcherCore::TakeOffLeavingGroups(absl::Time now) {
  for (const auto& [name, group] : registry_.groups()) {
    if (!group->leaving()) continue;
    const auto found = loads_.find(group.get());
    if (found != loads_.end() && now >= found->second.leave_by) {
      const std::vector<Call*> running = found->second.running;
      for (Call* call : running) HandOver(*call, /*at_once=*/true, now);
    }
    if (found == loads_.end() || found->second.running.empty()) group->Dismiss();
  }
}

void DispatcherCore::EndHomeless(absl::Time now) {
  const std::vector<GroupState> groups = StatesOfServing();
  for (auto& [id, call] : calls_) {
    if (call->ended || call->state.phase != RequestPhase::kQueued) continue;
    const RequestState& state = call->state;  // clang 14 captures no structured binding
    const bool has_home = std::any_of(groups.begin(), groups.end(),
                                      [&state](const GroupState& group) { return MayServe(state, group); });
    call->homeless = has_home ? absl::InfiniteFuture() : std::min(call->homeless, now);
    if (now - call->homeless < options_.recovery.group_wait) continue;
    End(*call, {absl::UnavailableError("no healthy group of workers"), estimate_.RetryDelay(1)}, now);
  }
}

}  // namespace lancet
