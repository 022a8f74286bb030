// Threads that run tasks from one bounded queue: an event loop (one thread, with ticks) or a small pool.
// Thread-safe.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "absl/time/time.h"

namespace lancet {

class TaskRunner {
 public:
  struct Options {
    int num_threads = 1;
    size_t capacity = 1024;  // tasks that may wait
    // With one thread only: `tick` runs on it at this interval, between tasks.
    absl::Duration tick_interval = absl::InfiniteDuration();
    std::function<void()> tick;
  };

  explicit TaskRunner(Options options);
  // Stop().
  ~TaskRunner();
  TaskRunner(const TaskRunner&) = delete;
  TaskRunner& operator=(const TaskRunner&) = delete;

  // False when the queue is full or the runner stops; the task is then dropped.
  bool TryPost(std::function<void()> task);
  // Takes the task even if the queue is full: for what must not be lost and whose number something else
  // bounds, such as one event per call. False when the runner stops.
  bool Post(std::function<void()> task);
  // Runs what is queued, then ends the threads. Idempotent; not from a task.
  void Stop();

 private:
  void Run();

  const Options options_;
  // std::mutex and not absl::Mutex: TSan sees its locks (the distribution's Abseil is not instrumented).
  std::mutex mu_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> tasks_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace lancet
