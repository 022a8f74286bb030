// The lancet_* metrics of a coordinator. docs/operations.md lists them.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>

#include "absl/time/time.h"
#include "common/clock.h"
#include "coordinator/dispatch/dispatcher_core.h"
#include "coordinator/dispatch/recent_errors.h"
#include "coordinator/dispatch/service_observer.h"
#include "coordinator/telemetry/metric.h"

namespace lancet {

// Thread-safe.
class ServiceMetrics final : public ServiceObserver {
 public:
  struct Options {
    const Clock* clock = nullptr;  // outlives the metrics
    std::string version;
    std::string model;
    std::string fingerprint;
    std::string quantization;
    int64_t cache_token_bytes = 0;  // keys and values of one token, over all ranks of a group
  };

  explicit ServiceMetrics(const Options& options);

  void OnOutcome(const RequestOutcome& outcome) override;
  void OnIterationSent(const std::string& group, int64_t rows, int64_t requests) override;
  void OnIterationDone(const std::string& group, absl::Duration took) override;
  void OnFirstPreview(uint64_t id, RequestTask task, absl::Duration after) override;
  void OnFirstToken(uint64_t id, absl::Duration after) override;
  void OnGroupLost(const std::string& group, int64_t running) override;
  void OnResumed(uint64_t id) override;
  void OnReceived(RequestTask task, int64_t bytes) override;
  void OnSent(RequestTask task, int64_t bytes) override;
  const RecentErrors& recent_errors() const { return recent_errors_; }
  // A rank that the worker port turned away before it could say anything.
  void OnRankRefused();

  struct Readings {
    ServiceStatus status;
    bool serving = false;
    bool serving_vision = false;
  };
  // With what is read now.
  std::string Render(const Readings& readings, MetricFormat format);

 private:
  void SetGauges(const Readings& readings);

  RecentErrors recent_errors_;
  const Clock* const clock_;
  const int64_t cache_token_bytes_;
  MetricRegistry registry_;
  Family<Counter>& requests_;
  Family<Counter>& rejected_;
  Family<Histogram>& request_seconds_;
  Family<Histogram>& queue_seconds_;
  Family<Histogram>& stage_seconds_;
  Family<Histogram>& first_preview_seconds_;
  Family<Histogram>& first_token_seconds_;
  Family<Histogram>& iteration_seconds_;
  Family<Histogram>& iteration_rows_;
  Family<Histogram>& iteration_requests_;
  Family<Counter>& resumes_;
  Family<Counter>& group_losses_;
  Family<Counter>& requests_lost_;
  Family<Counter>& received_bytes_;
  Family<Counter>& sent_bytes_;
  Family<Counter>& ranks_refused_;
  Family<Gauge>& waiting_;
  Family<Gauge>& running_;
  Family<Gauge>& calls_;
  Family<Gauge>& serving_;
  Family<Gauge>& group_running_;
  Family<Gauge>& cache_bytes_;
  Family<Gauge>& cache_limit_bytes_;
  Family<Gauge>& worker_up_;
  Family<Gauge>& resident_bytes_;
  Family<Gauge>& open_fds_;
  Family<Gauge>& start_time_;

  std::mutex render_mu_;  // one scrape at a time sets gauges
  // Groups that were ever seen, so that one that is gone reads 0 instead of nothing. Guarded by render_mu_.
  std::map<std::string, int> world_sizes_;
};

}  // namespace lancet
