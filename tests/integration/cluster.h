// A coordinator and its workers as real processes on free loopback ports, for one test or one suite of tests.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/generation_client.h"
#include "tests/integration/host_network.h"
#include "tests/integration/process.h"
#include "tests/integration/relay.h"

namespace lancet {

// Far above what anything takes on a busy machine, so that only a hang meets it.
inline constexpr absl::Duration kClusterDeadline = absl::Seconds(60);

enum class Health { kServing, kNotServing, kUnreachable };

struct ClusterOptions {
  std::string model_dir;
  int world_size = 1;
  int groups = 1;        // replicas, each of world_size ranks
  bool relayed = false;  // every rank reaches the coordinator through a link that can be cut
  // Ranks of the last group are on hosts of their own (host_network.h): they add over TCP, and what is cut is
  // the link of the host. Where that is not allowed they are like the others; Cluster::hosts() says so.
  bool last_group_on_hosts = false;
  std::vector<std::string> coordinator_flags = {};
  std::vector<std::string> worker_flags = {};  // "{rank}" in them stands for the rank
  ClientOptions client = {};                   // how to come in; its server is filled in
};

// The nano model of the test data with a card that saves fitting preview colours at every start: a step takes
// milliseconds. One compute thread a rank, so that a busy machine does not keep a team waiting for its
// slowest.
ClusterOptions NanoCluster(int world_size);
// The model that the repository comes with.
ClusterOptions DemoCluster(int world_size);

// Not thread-safe, but its client is.
class Cluster {
 public:
  // Everything started and serving. The error carries the logs.
  static absl::StatusOr<std::unique_ptr<Cluster>> Start(ClusterOptions options);
  // Kills all processes and removes their files.
  ~Cluster();

  GenerationClient& client() { return *client_; }
  const std::string& address() const { return address_; }
  // To reach it in the same way.
  ClientOptions client_options() const;
  std::string worker_address() const;                 // where ranks dial
  int metrics_port() const { return metrics_port_; }  // 0 without --metrics_listen
  Process& coordinator() { return *coordinator_; }
  // Ranks count on over the groups: rank r of group g is worker g * world_size + r.
  Process& worker(int worker) { return *workers_[worker]; }
  // Whether the last group's ranks are on hosts of their own.
  bool hosts() const { return hosts_ != nullptr; }
  // Takes the link of a rank down, or up again: that of its host, or its relay to the coordinator. Error if
  // it has neither.
  absl::Status SetLink(int worker, bool up);
  int world_size() const { return options_.world_size; }
  int num_workers() const { return static_cast<int>(workers_.size()); }
  // A folder of the cluster's own.
  const std::string& dir() const { return dir_; }

  absl::Status StartWorker(int worker);
  // Again on the ports of the first one.
  absl::Status StartCoordinator();

  Health GetHealth() const;
  // DeadlineExceeded with the logs if it does not become so.
  absl::Status AwaitHealth(Health health, absl::Duration timeout = kClusterDeadline) const;

  // What all processes have printed.
  std::string Logs() const;

 private:
  Cluster(ClusterOptions options, std::string dir);
  absl::Status Begin();
  // The number of the rank's host, or -1.
  int HostOf(int worker) const;

  const ClusterOptions options_;
  const std::string dir_;
  int public_port_ = 0;
  int worker_port_ = 0;
  int metrics_port_ = 0;
  std::string address_;
  std::unique_ptr<Process> coordinator_;
  std::unique_ptr<HostNetwork> hosts_;  // outlives those who run there
  std::string secret_file_;             // that ranks prove to know; with hosts only
  std::vector<std::unique_ptr<Relay>> relays_;
  std::vector<std::unique_ptr<Process>> workers_;
  std::unique_ptr<GenerationClient> client_;
};

}  // namespace lancet
