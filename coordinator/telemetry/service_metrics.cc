#include "coordinator/telemetry/service_metrics.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "coordinator/telemetry/process_numbers.h"

namespace lancet {
namespace {

// 1 ms to 9 min: a token on a GPU to a large picture on a CPU.
std::vector<double> SecondsBounds() { return ExponentialBounds(0.001, 3, 13); }
// An iteration or a wait: half of that at the lower end.
std::vector<double> ShortSecondsBounds() { return ExponentialBounds(0.0005, 2, 18); }
std::vector<double> RowsBounds() { return ExponentialBounds(1, 4, 9); }   // to 65536 rows
std::vector<double> CountBounds() { return ExponentialBounds(1, 2, 9); }  // to 256 requests, the limit

// Groups whose ranks come and go under ever new names are forgotten beyond this; a coordinator has 16 at a
// time.
constexpr size_t kMaxKnownGroups = 64;
// Of kMaxKnownGroups groups of usual size; what is beyond is one series "other".
constexpr size_t kMaxRankSeries = 1024;

LabelValues Label(RequestTask task) { return {std::string(TaskName(task))}; }

}  // namespace

ServiceMetrics::ServiceMetrics(const Options& options)
    : clock_(options.clock),
      cache_token_bytes_(options.cache_token_bytes),
      requests_(registry_.AddCounter("lancet_requests_total", "Requests that ended, by task and status code.",
                                     {"task", "code"})),
      rejected_(registry_.AddCounter("lancet_requests_rejected_total",
                                     "Requests that never began, by reason; also in lancet_requests_total.",
                                     {"reason"})),
      request_seconds_(registry_.AddHistogram("lancet_request_seconds",
                                              "From arrival to the end of requests that succeeded.",
                                              SecondsBounds(), {"task"})),
      queue_seconds_(registry_.AddHistogram(
          "lancet_queue_seconds", "Wait of requests before work on them began.", SecondsBounds(), {"task"})),
      stage_seconds_(registry_.AddHistogram(
          "lancet_stage_seconds", "Work on a request that succeeded, by stage.", SecondsBounds(), {"stage"})),
      first_preview_seconds_(registry_.AddHistogram("lancet_time_to_first_preview_seconds",
                                                    "From arrival to the first preview of a picture.",
                                                    SecondsBounds(), {"task"})),
      first_token_seconds_(registry_.AddHistogram("lancet_time_to_first_token_seconds",
                                                  "From arrival to the first token of an answer.",
                                                  SecondsBounds())),
      iteration_seconds_(registry_.AddHistogram("lancet_iteration_seconds", "Iterations of a group.",
                                                ShortSecondsBounds(), {"group"})),
      iteration_rows_(registry_.AddHistogram("lancet_iteration_rows", "Packed rows of an iteration.",
                                             RowsBounds(), {"group"})),
      iteration_requests_(registry_.AddHistogram(
          "lancet_iteration_requests", "Requests that share an iteration: the occupancy of its batch.",
          CountBounds(), {"group"})),
      resumes_(
          registry_.AddCounter("lancet_request_resumes_total",
                               "Times that a request went on from a snapshot after its group was lost.")),
      group_losses_(registry_.AddCounter("lancet_group_losses_total",
                                         "Epochs that ended because a rank died, hung or was cut off.",
                                         {"group"})),
      requests_lost_(registry_.AddCounter("lancet_requests_interrupted_total",
                                          "Requests that were running when their group was lost.",
                                          {"group"})),
      received_bytes_(registry_.AddCounter("lancet_received_bytes_total", "Request messages.", {"task"})),
      sent_bytes_(registry_.AddCounter("lancet_sent_bytes_total", "Response messages.", {"task"})),
      ranks_refused_(registry_.AddCounter("lancet_worker_connections_refused_total",
                                          "Streams of ranks without a valid proof of the shared secret.")),
      waiting_(registry_.AddGauge("lancet_requests_waiting", "Requests in the queue.")),
      running_(registry_.AddGauge("lancet_requests_running", "Requests that have a place on a group.")),
      calls_(
          registry_.AddGauge("lancet_calls", "Calls that exist, those whose client still reads included.")),
      serving_(registry_.AddGauge("lancet_serving", "1 while the service takes work, as gRPC's health says.",
                                  {"service"})),
      group_running_(registry_.AddGauge("lancet_group_requests_running",
                                        "Requests with a place on the group.", {"group"})),
      cache_bytes_(registry_.AddGauge("lancet_kv_cache_bytes",
                                      "Keys and values that running requests have set aside on a group.",
                                      {"group"})),
      cache_limit_bytes_(registry_.AddGauge("lancet_kv_cache_limit_bytes",
                                            "Keys and values that a group has memory for.", {"group"})),
      worker_up_(registry_.AddGauge("lancet_worker_up", "1 while the rank is connected.", {"group", "rank"},
                                    kMaxRankSeries)),
      resident_bytes_(registry_.AddGauge("process_resident_memory_bytes", "Memory of the coordinator.")),
      open_fds_(registry_.AddGauge("process_open_fds", "Open descriptors of the coordinator.")),
      start_time_(registry_.AddGauge("process_start_time_seconds", "Unix time when the coordinator began.")) {
  registry_.AddGauge("lancet_build_info", "Version of the coordinator.", {"version"})
      .With({options.version})
      .Set(1);
  registry_
      .AddGauge("lancet_model_info", "The model that is served.", {"model", "fingerprint", "quantization"})
      .With({options.model, options.fingerprint, options.quantization})
      .Set(1);
  start_time_.With({}).Set(static_cast<double>(absl::ToUnixSeconds(absl::Now())));
  // What nothing happened to yet reads 0 instead of being absent.
  resumes_.With({});
  ranks_refused_.With({});
  for (const RequestTask task : {RequestTask::kGenerate, RequestTask::kEdit, RequestTask::kDescribe}) {
    requests_.With({std::string(TaskName(task)), "OK"});
    received_bytes_.With(Label(task));
    sent_bytes_.With(Label(task));
  }
}

void ServiceMetrics::OnOutcome(const RequestOutcome& outcome) {
  recent_errors_.Add(outcome, clock_->Now());
  requests_
      .With({std::string(TaskName(outcome.origin.task)), absl::StatusCodeToString(outcome.status.code())})
      .Add();
  if (outcome.reason != RejectReason::kNone) {
    rejected_.With({std::string(RejectReasonName(outcome.reason))}).Add();
  }
  if (outcome.joined.has_value()) return;  // the times are the request's, which tells them
  const std::string id = RequestIdText(outcome.id);
  const auto observe = [&id](Family<Histogram>& family, LabelValues labels, absl::Duration value) {
    family.With(labels).Observe(absl::ToDoubleSeconds(value), id);
  };
  if (!outcome.group.empty()) observe(queue_seconds_, Label(outcome.origin.task), outcome.timings.queue);
  if (!outcome.status.ok()) return;
  observe(request_seconds_, Label(outcome.origin.task), outcome.timings.total);
  const StageTimings& timings = outcome.timings;
  const bool answers = outcome.origin.task == RequestTask::kDescribe;
  if (outcome.origin.task != RequestTask::kGenerate) observe(stage_seconds_, {"input"}, timings.input);
  observe(stage_seconds_, {"prefill"}, timings.prefill);
  if (answers) {
    observe(stage_seconds_, {"answer"}, timings.answer);
  } else {
    observe(stage_seconds_, {"denoise"}, timings.denoise);
    observe(stage_seconds_, {"decode"}, timings.decode);
    observe(stage_seconds_, {"encode"}, timings.encode);
  }
}

void ServiceMetrics::OnIterationSent(const std::string& group, int64_t rows, int64_t requests) {
  iteration_rows_.With({group}).Observe(static_cast<double>(rows));
  iteration_requests_.With({group}).Observe(static_cast<double>(requests));
}

void ServiceMetrics::OnIterationDone(const std::string& group, absl::Duration took) {
  iteration_seconds_.With({group}).Observe(absl::ToDoubleSeconds(took));
}

void ServiceMetrics::OnFirstPreview(uint64_t id, RequestTask task, absl::Duration after) {
  first_preview_seconds_.With(Label(task)).Observe(absl::ToDoubleSeconds(after), RequestIdText(id));
}

void ServiceMetrics::OnFirstToken(uint64_t id, absl::Duration after) {
  first_token_seconds_.With({}).Observe(absl::ToDoubleSeconds(after), RequestIdText(id));
}

void ServiceMetrics::OnGroupLost(const std::string& group, int64_t running) {
  group_losses_.With({group}).Add();
  requests_lost_.With({group}).Add(static_cast<uint64_t>(running));
}

void ServiceMetrics::OnResumed(uint64_t) { resumes_.With({}).Add(); }

void ServiceMetrics::OnReceived(RequestTask task, int64_t bytes) {
  received_bytes_.With(Label(task)).Add(static_cast<uint64_t>(bytes));
}

void ServiceMetrics::OnSent(RequestTask task, int64_t bytes) {
  sent_bytes_.With(Label(task)).Add(static_cast<uint64_t>(bytes));
}

void ServiceMetrics::OnRankRefused() { ranks_refused_.With({}).Add(); }

void ServiceMetrics::SetGauges(const Readings& readings) {
  waiting_.With({}).Set(readings.status.waiting);
  running_.With({}).Set(readings.status.running);
  calls_.With({}).Set(readings.status.calls);
  serving_.With({"lancet.v1.ImageService"}).Set(readings.serving ? 1 : 0);
  serving_.With({"lancet.v1.TextService"}).Set(readings.serving_vision ? 1 : 0);
  const ProcessNumbers process = ReadProcessNumbers();
  resident_bytes_.With({}).Set(static_cast<double>(process.resident_bytes));
  open_fds_.With({}).Set(static_cast<double>(process.open_descriptors));

  for (Family<Gauge>* family : {&group_running_, &cache_bytes_, &cache_limit_bytes_, &worker_up_})
    family->Clear();
  if (world_sizes_.size() > kMaxKnownGroups) world_sizes_.clear();
  for (const GroupInfo& group : readings.status.groups) world_sizes_[group.name] = group.world_size;
  for (const auto& [name, world_size] : world_sizes_) {
    for (int rank = 0; rank < world_size; ++rank) worker_up_.With({name, absl::StrCat(rank)}).Set(0);
  }
  const auto bytes = [this](int64_t tokens) { return static_cast<double>(tokens * cache_token_bytes_); };
  for (const GroupInfo& group : readings.status.groups) {
    group_running_.With({group.name}).Set(group.active_requests);
    cache_bytes_.With({group.name}).Set(bytes(group.cache_tokens));
    cache_limit_bytes_.With({group.name}).Set(bytes(group.max_cache_tokens));
    for (size_t rank = 0; rank < group.ranks_there.size(); ++rank) {
      if (group.ranks_there[rank]) worker_up_.With({group.name, absl::StrCat(rank)}).Set(1);
    }
  }
}

std::string ServiceMetrics::Render(const Readings& readings, MetricFormat format) {
  const std::lock_guard<std::mutex> lock(render_mu_);
  SetGauges(readings);
  return registry_.Render(format);
}

}  // namespace lancet
