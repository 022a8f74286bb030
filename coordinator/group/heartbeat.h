// Whether the process behind a link still runs: it is pinged at intervals and must answer in time. Not
// thread-safe.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/time/time.h"

namespace lancet {

class Heartbeat {
 public:
  struct Options {
    absl::Duration interval = absl::Milliseconds(500);
    absl::Duration timeout = absl::Seconds(2);
  };

  explicit Heartbeat(Options options) : options_(options) {}

  // The id of a ping to send now, if one is due. None while the last one is unanswered.
  std::optional<uint64_t> Ping(absl::Time now) {
    if (waiting_ || now - sent_ < options_.interval) return std::nullopt;
    waiting_ = true;
    sent_ = now;
    return ++id_;
  }

  void OnPong(uint64_t id) {
    if (id == id_) waiting_ = false;
  }

  bool Dead(absl::Time now) const { return waiting_ && now - sent_ >= options_.timeout; }

 private:
  const Options options_;
  uint64_t id_ = 0;
  bool waiting_ = false;
  absl::Time sent_ = absl::InfinitePast();
};

}  // namespace lancet
