// Asks a server what it does now (lancet.v1.AdminService), in plain structs.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/client_options.h"

namespace lancet {

struct ServerStatus {
  struct Group {
    std::string name;
    std::string state;  // "forming", "serving", "draining" or "unknown"
    int32_t active_requests = 0;
    std::string device;
    std::vector<bool> rank_connected;
    int64_t cache_tokens = 0;
    int64_t max_cache_tokens = 0;
  };
  struct Error {
    std::string request_id;
    absl::Duration age;
    std::string task;  // "generate", "edit", "describe" or "unknown"
    std::string code;  // such as "UNAVAILABLE"
    std::string message;
    std::string token;  // its name
  };
  std::string server_version;
  std::string model;
  absl::Duration uptime;
  bool draining = false;
  int32_t waiting = 0;
  int32_t max_queue = 0;
  int32_t running = 0;
  int32_t calls = 0;
  int64_t requests_succeeded = 0;
  int64_t requests_failed = 0;
  std::vector<Group> groups;
  std::vector<Error> recent_errors;  // newest first
};

// Thread-safe.
class StatusClient {
 public:
  // Errors as CheckClientOptions.
  static absl::StatusOr<std::unique_ptr<StatusClient>> Create(const ClientOptions& options);
  ~StatusClient();

  // The error is the server's.
  absl::StatusOr<ServerStatus> GetStatus(absl::Duration timeout);

 private:
  struct Impl;
  explicit StatusClient(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

}  // namespace lancet
