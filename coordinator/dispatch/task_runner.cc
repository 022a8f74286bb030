#include "coordinator/dispatch/task_runner.h"

#include <chrono>
#include <utility>

namespace lancet {

TaskRunner::TaskRunner(Options options) : options_(std::move(options)) {
  for (int i = 0; i < options_.num_threads; ++i) threads_.emplace_back([this] { Run(); });
}

TaskRunner::~TaskRunner() { Stop(); }

bool TaskRunner::TryPost(std::function<void()> task) {
  {
    const std::lock_guard<std::mutex> lock(mu_);
    if (stopping_ || tasks_.size() >= options_.capacity) return false;
    tasks_.push_back(std::move(task));
  }
  wake_.notify_one();
  return true;
}

bool TaskRunner::Post(std::function<void()> task) {
  {
    const std::lock_guard<std::mutex> lock(mu_);
    if (stopping_) return false;
    tasks_.push_back(std::move(task));
  }
  wake_.notify_one();
  return true;
}

void TaskRunner::Stop() {
  {
    const std::lock_guard<std::mutex> lock(mu_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
}

void TaskRunner::Run() {
  using SteadyClock = std::chrono::steady_clock;
  const bool ticks = options_.tick != nullptr;
  const auto interval = absl::ToChronoMilliseconds(options_.tick_interval);
  SteadyClock::time_point next_tick = SteadyClock::now();
  const auto ready = [this] { return stopping_ || !tasks_.empty(); };
  while (true) {
    std::function<void()> task;
    {
      std::unique_lock<std::mutex> lock(mu_);
      if (ticks) {
        wake_.wait_until(lock, next_tick, ready);
      } else {
        wake_.wait(lock, ready);  // ended by Stop
      }
      if (!tasks_.empty()) {
        task = std::move(tasks_.front());
        tasks_.pop_front();
      } else if (stopping_) {
        return;
      }
    }
    if (task != nullptr) task();
    if (ticks && SteadyClock::now() >= next_tick) {
      options_.tick();
      next_tick = SteadyClock::now() + interval;
    }
  }
}

}  // namespace lancet
