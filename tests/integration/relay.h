// A TCP link that a test can cut while both of its ends live: bytes are passed on until Cut and again after
// Heal; in between nothing moves and nobody is told, as when a cable is pulled.
#pragma once

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"

namespace lancet {

class Relay {
 public:
  // Listens on a free port of 127.0.0.1 and connects each who comes to `target_port` there.
  static absl::StatusOr<std::unique_ptr<Relay>> Start(int target_port);
  // Closes all connections.
  ~Relay();

  int port() const { return port_; }
  // Thread-safe.
  void Cut() { cut_ = true; }
  void Heal() { cut_ = false; }

 private:
  // Two sockets; bytes go from either to the other.
  struct Pair {
    int ends[2] = {-1, -1};
  };

  Relay(int listener, int port, int target_port);
  void Run();
  void Accept();
  // Passes on what can be read from `from`; false if the connection is over.
  static bool Pass(int from, int to);

  const int listener_;
  const int port_;
  const int target_port_;
  std::atomic<bool> cut_{false};
  std::atomic<bool> stop_{false};
  std::vector<Pair> pairs_;  // of the thread
  std::thread thread_;
};

}  // namespace lancet
