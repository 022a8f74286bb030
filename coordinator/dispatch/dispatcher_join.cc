// Of DispatcherCore: who listens to a request, and requests that several calls ask for with one idempotency
// key.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/logging.h"
#include "coordinator/dispatch/dispatcher_core.h"

namespace lancet {

DispatcherCore::Call* DispatcherCore::Find(uint64_t call_id) {
  const auto joined = joined_.find(call_id);
  const auto found = calls_.find(joined == joined_.end() ? call_id : joined->second);
  return found == calls_.end() ? nullptr : found->second.get();
}

bool DispatcherCore::Join(NewRequest& request, absl::Time now) {
  const auto known = keys_.find(request.idempotency_key);
  if (known == keys_.end()) return false;
  Call& call = *calls_.at(known->second);
  CallStatus refusal;
  if (call.digest != request.digest) {
    refusal = {absl::InvalidArgumentError("idempotency_key: it was used with another request before"),
               std::nullopt, RejectReason::kInvalid};
  } else if (static_cast<int>(joined_.size()) >= options_.max_calls) {
    refusal = {
        absl::ResourceExhaustedError(absl::StrCat("too many calls: the limit is ", options_.max_calls)),
        estimate_.RetryDelay(1), RejectReason::kTooManyCalls};
  } else if (request.stream->cancelled()) {
    refusal.status = absl::CancelledError("the client went away");
  }
  Joined joined{std::move(request.origin), request.arrival};
  if (!refusal.status.ok()) {
    TellJoined(call, request.plan.request_id, joined, refusal, now);
    request.stream->End(std::move(refusal));
    return true;
  }
  joined_[request.plan.request_id] = call.state.id;
  call.orphaned = absl::InfiniteFuture();
  if (!call.ended) call.state.deadline = std::max(call.state.deadline, request.deadline);
  call.audience->Join(request.stream);
  LogInfo("request joined", {{"request_id", RequestIdText(call.state.id)},
                             {"trace_id", call.origin.trace.TraceId()},
                             {"joined_trace_id", joined.origin.trace.TraceId()},
                             {"ended", call.ended ? "true" : "false"}});
  // What is kept of a request that ended is its success.
  if (call.ended) TellJoined(call, request.plan.request_id, joined, CallStatus{}, now);
  call.clients.push_back(
      {request.plan.request_id, std::move(request.stream), /*left=*/false, std::move(joined)});
  return true;
}

void DispatcherCore::LeaveAudience(Call& call, Client& client, absl::Status status, absl::Time now) {
  if (std::exchange(client.left, true)) return;
  if (client.joined.has_value() && !call.ended) {
    TellJoined(call, client.id, *client.joined, {status, std::nullopt}, now);
  }
  call.audience->Leave(client.stream.get());
  client.stream->End({status, std::nullopt});
  const bool alone =
      std::all_of(call.clients.begin(), call.clients.end(), [](const Client& c) { return c.left; });
  if (!alone || call.ended) return;
  if (call.key.empty()) {
    End(call, {std::move(status), std::nullopt}, now);
  } else {
    call.orphaned = now;
  }
}

void DispatcherCore::Cancel(uint64_t id, absl::Time now) {
  Call* call = Find(id);
  if (call == nullptr) return;
  for (Client& client : call->clients) {
    if (client.id == id) LeaveAudience(*call, client, absl::CancelledError("the client went away"), now);
  }
  Pump(now);
}

void DispatcherCore::OnCallDone(uint64_t id, absl::Time now) {
  Call* call = Find(id);
  joined_.erase(id);
  if (call == nullptr) return;
  for (Client& client : call->clients) {
    // The transport broke before the outcome was known.
    if (client.id == id) LeaveAudience(*call, client, absl::CancelledError("the connection broke"), now);
  }
  std::erase_if(call->clients, [id](const Client& client) { return client.id == id; });
  ExpireResults(now);
  Pump(now);
}

void DispatcherCore::KeepResult(Call& call, const absl::Status& status, absl::Time now) {
  if (call.key.empty()) return;
  if (!status.ok()) {
    // What failed may be tried again.
    keys_.erase(call.key);
    call.key.clear();
    return;
  }
  call.expires = now + options_.idempotency.lifetime;
  kept_.push_back(call.state.id);
  kept_bytes_ += call.audience->kept_bytes();
}

void DispatcherCore::ExpireResults(absl::Time now) {
  const IdempotencyOptions& limits = options_.idempotency;
  // The lifetime is the same for all, so that the oldest expires first.
  while (!kept_.empty()) {
    Call& oldest = *calls_.at(kept_.front());
    if (oldest.expires > now && kept_.size() <= limits.max_results && kept_bytes_ <= limits.max_result_bytes)
      break;
    kept_.pop_front();
    kept_bytes_ -= oldest.audience->kept_bytes();
    keys_.erase(oldest.key);
    oldest.key.clear();
  }
  std::erase_if(calls_, [](const auto& entry) {
    const Call& call = *entry.second;
    return call.ended && call.key.empty() && call.clients.empty();
  });
}

bool DispatcherCore::idle() const {
  return std::all_of(calls_.begin(), calls_.end(),
                     [](const auto& entry) { return entry.second->clients.empty(); });
}

}  // namespace lancet
