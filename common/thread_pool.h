// A fixed team of compute threads for data-parallel loops. Deterministic: the split depends on sizes and team
// only, and ops must not let their results depend on the split.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"

namespace lancet {

// Lowers the calling thread's priority by `nice` (> 0; at most to the lowest there is). 0 does nothing.
void LowerThreadPriority(int nice);

// Confines the calling thread to one processor. False, and nothing done, if the process may not use it.
bool PinThreadTo(int cpu);

class ThreadPool {
 public:
  // A team of `num_threads` >= 1, the calling thread included: num_threads - 1 threads are started. With
  // `nice` > 0 they lower their own priority by that much (Linux gives every thread its own). Thread t runs
  // on processor cpus[t] alone, as far as there are so many; the calling thread, 0, is left to the caller.
  explicit ThreadPool(int num_threads, int nice = 0, const std::vector<int>& cpus = {});
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const;

  // Calls fn(begin, end, thread) over disjoint ranges that cover [0, count), each at least `min_chunk` long
  // but the last; thread is in [0, num_threads). Returns when all are done. Not reentrant; one caller at a
  // time.
  void ParallelFor(int64_t count, int64_t min_chunk,
                   absl::FunctionRef<void(int64_t begin, int64_t end, int thread)> fn);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lancet
