// A small HTTP server for monitors: GET /metrics, /healthz and /readyz. It has a few threads of its own,
// keeps no state and shows nothing of a request's content; it knows neither TLS nor tokens, so it belongs on
// loopback or on a network of the operator's.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "coordinator/telemetry/metric.h"

namespace lancet {

class MetricsServer {
 public:
  // All are called from threads of the server, at the same time, too.
  struct Options {
    std::string listen = "127.0.0.1:50053";  // "host:port"; port 0 takes a free one
    std::function<std::string(MetricFormat)> metrics;
    // OK if the process works: answered 200, else 503 with the message.
    std::function<absl::Status()> health;
    // OK if it takes requests.
    std::function<absl::Status()> readiness;
  };

  // InvalidArgument for an address that is none, Unavailable for one that cannot be listened on.
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Create(Options options);
  // Waits for answers under way, at most the few seconds that a slow reader is given.
  ~MetricsServer();

  int port() const;

 private:
  struct Impl;
  explicit MetricsServer(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

}  // namespace lancet
