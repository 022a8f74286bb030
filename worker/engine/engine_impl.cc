#include "worker/engine/engine_impl.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/status_macros.h"
#include "worker/engine/warm_up.h"

namespace lancet {

EngineImpl::EngineImpl(EngineOptions options, ModelConfig config, std::unique_ptr<ModelRunner> runner)
    : options_(options), config_(config), runner_(std::move(runner)) {}

absl::Status EngineImpl::Attach(Collective* collective) {
  if (collective->rank() != options_.rank || collective->world_size() != options_.world_size) {
    return absl::InvalidArgumentError(absl::StrCat("collective of rank ", collective->rank(), " of ",
                                                   collective->world_size(), "; this engine is rank ",
                                                   options_.rank, " of ", options_.world_size));
  }
  requests_.clear();
  cache_tokens_ = 0;
  LANCET_RETURN_IF_ERROR(runner_->Attach(collective));
  attached_ = true;
  return absl::OkStatus();
}

absl::Status EngineImpl::WarmUp() {
  for (const WarmUpRequest& request : WarmUpRequests(config_, runner_->limits())) {
    LANCET_RETURN_IF_ERROR(Admit(request.plan));
    LANCET_RETURN_IF_ERROR(Iterate(request.work).status());
    LANCET_RETURN_IF_ERROR(Release(request.plan.request_id));
  }
  return absl::OkStatus();
}

absl::Status EngineImpl::Admit(const RequestPlan& plan) {
  if (!attached_) return absl::FailedPreconditionError("Admit before Attach");
  if (requests_.contains(plan.request_id)) {
    return absl::AlreadyExistsError(absl::StrCat("request ", plan.request_id, " is already admitted"));
  }
  if (static_cast<int>(requests_.size()) >= options_.max_requests) {
    return absl::ResourceExhaustedError(
        absl::StrCat("this rank holds ", requests_.size(), " requests, its limit"));
  }
  LANCET_RETURN_IF_ERROR(CheckPlan(plan, config_, runner_->limits()));
  auto run = std::make_unique<RequestRun>(plan);
  const int64_t tokens = run->layout().tokens();
  if (cache_tokens_ + tokens > runner_->limits().cache_tokens) {
    return absl::ResourceExhaustedError(absl::StrCat("the request needs a cache of ", tokens, " tokens; ",
                                                     cache_tokens_, " of ", runner_->limits().cache_tokens,
                                                     " are taken"));
  }
  LANCET_ASSIGN_OR_RETURN(run->memory, runner_->Admit(run->plan()));
  cache_tokens_ += tokens;
  requests_.emplace(plan.request_id, std::move(run));
  return absl::OkStatus();
}

absl::Status EngineImpl::Release(uint64_t request_id) {
  const auto found = requests_.find(request_id);
  if (found == requests_.end()) {
    return absl::NotFoundError(absl::StrCat("request ", request_id, " is not admitted"));
  }
  cache_tokens_ -= found->second->layout().tokens();
  requests_.erase(found);
  return absl::OkStatus();
}

absl::StatusOr<RequestRun*> EngineImpl::Find(uint64_t request_id) {
  const auto found = requests_.find(request_id);
  if (found == requests_.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("work for request ", request_id, ", which is not admitted"));
  }
  return found->second.get();
}

absl::StatusOr<std::vector<WorkResult>> EngineImpl::Iterate(const std::vector<Work>& work) {
  if (!attached_) return absl::FailedPreconditionError("Iterate before Attach");
  std::vector<WorkResult> results(work.size());
  Pending pending;
  for (size_t i = 0; i < work.size(); ++i) {
    results[i].request_id = work[i].request_id;
    results[i].kind = work[i].kind;
    results[i].index = work[i].index;
    // A request's own work is done in order: what is in the pass already comes first.
    const bool waits = std::any_of(pending.items.begin(), pending.items.end(),
                                   [&](size_t j) { return work[j].request_id == work[i].request_id; });
    if (waits) LANCET_RETURN_IF_ERROR(RunPass(work, pending, results));
    LANCET_ASSIGN_OR_RETURN(RequestRun* const run, Find(work[i].request_id));
    LANCET_RETURN_IF_ERROR(run->CheckNext(work[i]));
    const int64_t rows = PassRows(run->plan(), run->layout(), work[i]);
    if (rows == 0 && work[i].kind == WorkKind::kPrefill) {
      run->Advance(work[i], results[i]);  // for a cache that this request does not have
      continue;
    }
    if (rows == 0) {
      LANCET_RETURN_IF_ERROR(Execute(*run, work[i], results[i]));
      continue;
    }
    if (work[i].kind == WorkKind::kAnswer && run->answered()) {
      run->Advance(work[i], results[i]);
      continue;
    }
    const bool replayed = work[i].kind == WorkKind::kPrefill && run->plan().prefix[work[i].index].answered &&
                          runner_->answered_row_by_row();
    if (rows > runner_->limits().max_rows || replayed) {
      LANCET_RETURN_IF_ERROR(RunLongPrefill(*run, work[i], results[i]));
      continue;
    }
    if (pending.rows + rows > runner_->limits().max_rows) {
      LANCET_RETURN_IF_ERROR(RunPass(work, pending, results));
    }
    pending.items.push_back(i);
    pending.rows += rows;
  }
  LANCET_RETURN_IF_ERROR(RunPass(work, pending, results));
  return results;
}

absl::Status EngineImpl::Execute(RequestRun& run, const Work& work, WorkResult& result) {
  const absl::Time start = absl::Now();
  switch (work.kind) {
    case WorkKind::kEncodeVision:
      LANCET_RETURN_IF_ERROR(runner_->EncodeVision(*run.memory));
      break;
    case WorkKind::kEncodeLatents:
      LANCET_RETURN_IF_ERROR(runner_->EncodeLatents(*run.memory));
      break;
    case WorkKind::kDecode: {
      LANCET_ASSIGN_OR_RETURN(result.image, runner_->Decode(*run.memory));
      break;
    }
    case WorkKind::kPrefill:
    case WorkKind::kDenoise:
    case WorkKind::kAnswer:
      return absl::InternalError("work of the trunk outside a pass");
  }
  result.seconds = absl::ToDoubleSeconds(absl::Now() - start);
  run.Advance(work, result);
  return absl::OkStatus();
}

absl::Status EngineImpl::RunPass(const std::vector<Work>& work, Pending& pending,
                                 std::vector<WorkResult>& results) {
  if (pending.items.empty()) return absl::OkStatus();
  std::vector<PassItem> items;
  std::vector<WorkResult> outcomes;
  for (const size_t i : pending.items) {
    items.push_back({requests_.at(work[i].request_id)->memory.get(), work[i]});
    outcomes.push_back(std::move(results[i]));
  }
  const absl::Time start = absl::Now();
  LANCET_RETURN_IF_ERROR(runner_->RunPass(items, absl::MakeSpan(outcomes)));
  const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
  for (size_t k = 0; k < pending.items.size(); ++k) {
    const size_t i = pending.items[k];
    RequestRun& run = *requests_.at(work[i].request_id);
    results[i] = std::move(outcomes[k]);
    // Its share of the pass, by rows.
    results[i].seconds = seconds * static_cast<double>(PassRows(run.plan(), run.layout(), work[i])) /
                         static_cast<double>(pending.rows);
    run.Advance(work[i], results[i]);
  }
  pending = {};
  return absl::OkStatus();
}

absl::Status EngineImpl::RunLongPrefill(RequestRun& run, const Work& work, WorkResult& result) {
  const absl::Time start = absl::Now();
  const int64_t max_rows = runner_->limits().max_rows;
  const int64_t rows = PassRows(run.plan(), run.layout(), work);
  const int64_t count = work.count > 0 ? work.count : run.plan().prefix[work.index].rows() - work.begin;
  if (work.kind != WorkKind::kPrefill || max_rows < rows / count) {
    return absl::InvalidArgumentError(absl::StrCat("work of ", rows, " rows; a pass has at most ", max_rows));
  }
  // Either cache takes a row of its own.
  const bool row_by_row = run.plan().prefix[work.index].answered && runner_->answered_row_by_row();
  const int64_t chunk = row_by_row ? 1 : max_rows / (rows / count);
  for (int64_t done = 0; done < count; done += chunk) {
    PassItem item{run.memory.get(), work};
    item.work.begin = static_cast<int32_t>(work.begin + done);
    item.work.count = static_cast<int32_t>(std::min(chunk, count - done));
    LANCET_RETURN_IF_ERROR(runner_->RunPass({&item, 1}, {&result, 1}));
  }
  result.seconds = absl::ToDoubleSeconds(absl::Now() - start);
  run.Advance(work, result);
  return absl::OkStatus();
}

}  // namespace lancet
