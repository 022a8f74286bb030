#include "coordinator/dispatch/service_observer.h"

#include <vector>

#include "absl/strings/str_format.h"
#include "common/logging.h"

namespace lancet {
namespace {

LogField Seconds(absl::string_view key, absl::Duration duration) {
  return SecondsField(key, absl::ToDoubleSeconds(duration));
}

}  // namespace

std::string RequestIdText(uint64_t id) { return absl::StrFormat("%016x", id); }

absl::string_view TaskName(RequestTask task) {
  switch (task) {
    case RequestTask::kGenerate:
      return "generate";
    case RequestTask::kEdit:
      return "edit";
    case RequestTask::kDescribe:
      return "describe";
  }
  return "";
}

absl::string_view RejectReasonName(RejectReason reason) {
  switch (reason) {
    case RejectReason::kNone:
      return "";
    case RejectReason::kUnauthenticated:
      return "unauthenticated";
    case RejectReason::kTokenLimit:
      return "token_limit";
    case RejectReason::kInvalid:
      return "invalid";
    case RejectReason::kTooLarge:
      return "too_large";
    case RejectReason::kQueueFull:
      return "queue_full";
    case RejectReason::kTooManyCalls:
      return "too_many_calls";
    case RejectReason::kOverloaded:
      return "overloaded";
    case RejectReason::kNoGroup:
      return "no_group";
    case RejectReason::kDraining:
      return "draining";
    case RejectReason::kLate:
      return "late";
  }
  return "";
}

void LogOutcome(const RequestOutcome& outcome) {
  std::vector<LogField> fields = {{"request_id", RequestIdText(outcome.id)},
                                  {"trace_id", outcome.origin.trace.TraceId()},
                                  {"task", TaskName(outcome.origin.task)},
                                  {"code", absl::StatusCodeToString(outcome.status.code())}};
  if (outcome.joined.has_value()) fields.emplace_back("joined", RequestIdText(*outcome.joined));
  if (!outcome.origin.caller.empty()) fields.emplace_back("token", outcome.origin.caller);
  // Our own words; they name fields and limits, never what a client wrote.
  if (!outcome.status.ok()) fields.emplace_back("reason", outcome.status.message());
  if (outcome.reason != RejectReason::kNone)
    fields.emplace_back("rejected", RejectReasonName(outcome.reason));
  if (outcome.joined.has_value()) {
    fields.push_back(Seconds("total_s", outcome.timings.total));
    Log(LogLevel::kInfo, "request", fields);
    return;
  }
  fields.insert(fields.end(), {{"group", outcome.group.empty() ? "-" : outcome.group},
                               {"seed", outcome.seed},
                               {"width", outcome.width},
                               {"height", outcome.height},
                               {"steps_done", outcome.steps_done},
                               {"steps", outcome.steps},
                               {"answer_tokens", outcome.answer_tokens},
                               {"resumes", outcome.resumes},
                               Seconds("queue_s", outcome.timings.queue),
                               Seconds("input_s", outcome.timings.input),
                               Seconds("prefill_s", outcome.timings.prefill),
                               Seconds("denoise_s", outcome.timings.denoise),
                               Seconds("decode_s", outcome.timings.decode),
                               Seconds("encode_s", outcome.timings.encode),
                               Seconds("answer_s", outcome.timings.answer),
                               Seconds("total_s", outcome.timings.total)});
  Log(absl::IsInternal(outcome.status) ? LogLevel::kError : LogLevel::kInfo, "request", fields);
}

}  // namespace lancet
