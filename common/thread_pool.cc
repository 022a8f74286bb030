#include "common/thread_pool.h"

#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace lancet {
namespace {

// About 20 us of polling: longer than the gap between two ops of one layer, shorter than a scheduler tick.
constexpr int kSpins = 2000;

inline void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

void LowerThreadPriority(int nice) {
  if (nice <= 0) return;
  // On Linux a priority belongs to the thread, in spite of the constant's name. Lowering it needs no right.
  const id_t tid = static_cast<id_t>(syscall(SYS_gettid));
  setpriority(PRIO_PROCESS, tid, std::min(19, getpriority(PRIO_PROCESS, tid) + nice));
}

bool PinThreadTo(int cpu) {
  if (cpu < 0 || cpu >= CPU_SETSIZE) return false;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  return sched_setaffinity(0, sizeof(set), &set) == 0;
}

// A loop is published by raising `epoch`, and is over when `running` has fallen to zero. The mutex guards
// nothing but the two sleeps: whoever changes one of the atomics locks it before notifying, so that no
// wake-up is lost between a sleeper's check and its sleep.
struct ThreadPool::Impl {
  std::vector<std::thread> threads;
  std::mutex mu;
  std::condition_variable work;
  std::condition_variable done;
  std::atomic<uint64_t> epoch{0};
  std::atomic<int> running{0};
  std::atomic<bool> stop{false};
  // Written before `epoch` rises, constant while `running` > 0.
  const absl::FunctionRef<void(int64_t, int64_t, int)>* fn = nullptr;
  int64_t count = 0;
  int64_t chunk = 0;

  void RunChunk(int thread) const {
    const int64_t begin = std::min(count, thread * chunk);
    const int64_t end = std::min(count, begin + chunk);
    if (begin < end) (*fn)(begin, end, thread);
  }

  // cpu: -1 for any.
  void WorkerLoop(int thread, int nice, int cpu) {
    LowerThreadPriority(nice);
    if (cpu >= 0) PinThreadTo(cpu);
    uint64_t seen = 0;
    while (true) {
      for (int i = 0; i < kSpins && epoch.load(std::memory_order_acquire) == seen; ++i) Pause();
      if (epoch.load(std::memory_order_acquire) == seen) {
        std::unique_lock<std::mutex> lock(mu);
        work.wait(lock, [&] { return epoch.load(std::memory_order_acquire) != seen; });
      }
      ++seen;
      if (stop.load(std::memory_order_acquire)) return;
      RunChunk(thread);
      if (running.fetch_sub(1, std::memory_order_acq_rel) == 1) {
        { std::lock_guard<std::mutex> lock(mu); }
        done.notify_one();
      }
    }
  }

  void Publish() {
    {
      std::lock_guard<std::mutex> lock(mu);
      epoch.fetch_add(1, std::memory_order_acq_rel);
    }
    work.notify_all();
  }
};

ThreadPool::ThreadPool(int num_threads, int nice, const std::vector<int>& cpus)
    : impl_(std::make_unique<Impl>()) {
  for (int thread = 1; thread < num_threads; ++thread) {
    const int cpu = thread < static_cast<int>(cpus.size()) ? cpus[thread] : -1;
    impl_->threads.emplace_back(
        [impl = impl_.get(), thread, nice, cpu] { impl->WorkerLoop(thread, nice, cpu); });
  }
}

ThreadPool::~ThreadPool() {
  impl_->stop.store(true, std::memory_order_release);
  impl_->Publish();
  for (std::thread& thread : impl_->threads) thread.join();
}

int ThreadPool::num_threads() const { return static_cast<int>(impl_->threads.size()) + 1; }

void ThreadPool::ParallelFor(int64_t count, int64_t min_chunk,
                             absl::FunctionRef<void(int64_t begin, int64_t end, int thread)> fn) {
  if (count <= 0) return;
  const int64_t team = num_threads();
  const int64_t chunk = std::max<int64_t>(std::max<int64_t>(min_chunk, 1), (count + team - 1) / team);
  if (chunk >= count) {  // one range: nothing to share, so nobody is woken
    fn(0, count, 0);
    return;
  }
  Impl& impl = *impl_;
  impl.fn = &fn;
  impl.count = count;
  impl.chunk = chunk;
  impl.running.store(static_cast<int>(team) - 1, std::memory_order_release);
  impl.Publish();
  impl.RunChunk(0);
  for (int i = 0; i < kSpins && impl.running.load(std::memory_order_acquire) != 0; ++i) Pause();
  if (impl.running.load(std::memory_order_acquire) != 0) {
    std::unique_lock<std::mutex> lock(impl.mu);
    impl.done.wait(lock, [&] { return impl.running.load(std::memory_order_acquire) == 0; });
  }
}

}  // namespace lancet
