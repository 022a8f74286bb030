// A rank's stream without RPC: keeps what was sent. Thread-safe.
#pragma once

#include <mutex>
#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include "coordinator/group/rank_link.h"

namespace lancet {

class FakeRankLink final : public RankLink {
 public:
  void Send(CoordinatorMessage message) override {
    const std::lock_guard<std::mutex> lock(mu_);
    sent_.push_back(std::move(message));
  }
  void Close(bool flush) override {
    const std::lock_guard<std::mutex> lock(mu_);
    closed_ = true;
    flushed_ = flush;
  }

  // What was sent since the last call.
  std::vector<CoordinatorMessage> TakeSent() {
    const std::lock_guard<std::mutex> lock(mu_);
    return std::exchange(sent_, {});
  }
  // The same, of one kind; others are dropped.
  template <typename Message>
  std::vector<Message> Take() {
    std::vector<Message> of_kind;
    for (CoordinatorMessage& message : TakeSent()) {
      if (auto* m = std::get_if<Message>(&message)) of_kind.push_back(std::move(*m));
    }
    return of_kind;
  }
  bool closed() const {
    const std::lock_guard<std::mutex> lock(mu_);
    return closed_;
  }
  bool flushed() const {
    const std::lock_guard<std::mutex> lock(mu_);
    return flushed_;
  }

 private:
  mutable std::mutex mu_;
  std::vector<CoordinatorMessage> sent_;
  bool closed_ = false;
  bool flushed_ = false;
};

}  // namespace lancet
