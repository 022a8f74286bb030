#include "common/thread_pool.h"

#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <thread>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace lancet {
namespace {

// Ranges by thread, {-1, -1} where a thread got none.
std::vector<std::pair<int64_t, int64_t>> Split(ThreadPool& pool, int64_t count, int64_t min_chunk) {
  std::vector<std::pair<int64_t, int64_t>> ranges(static_cast<size_t>(pool.num_threads()), {-1, -1});
  pool.ParallelFor(count, min_chunk, [&](int64_t begin, int64_t end, int thread) {
    EXPECT_EQ(ranges[thread].first, -1) << "thread " << thread << " was called twice";
    ranges[thread] = {begin, end};
  });
  return ranges;
}

TEST(ThreadPoolTest, CoversTheRangeInOrderOnce) {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.num_threads(), threads);
    for (const int64_t count : {0, 1, 2, 7, 8, 9, 1000}) {
      for (const int64_t min_chunk : {0, 1, 4, 5000}) {
        int64_t next = 0;
        for (const auto& [begin, end] : Split(pool, count, min_chunk)) {
          if (begin < 0) continue;
          EXPECT_EQ(begin, next);
          EXPECT_GT(end, begin);
          EXPECT_TRUE(end == count || end - begin >= min_chunk);
          next = end;
        }
        EXPECT_EQ(next, count);
      }
    }
  }
}

TEST(ThreadPoolTest, SplitsAlike) {
  ThreadPool pool(3);
  const auto first = Split(pool, 100, 1);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(Split(pool, 100, 1), first);
}

TEST(ThreadPoolTest, EverythingIsVisibleWhenALoopReturns) {
  ThreadPool pool(4);
  std::vector<int64_t> values(1000);
  for (int round = 0; round < 2000; ++round) {
    pool.ParallelFor(1000, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) values[i] += i;
    });
  }
  for (int64_t i = 0; i < 1000; ++i) EXPECT_EQ(values[i], 2000 * i);
}

TEST(ThreadPoolTest, OneThreadRunsInline) {
  ThreadPool pool(1);
  const std::thread::id caller = std::this_thread::get_id();
  pool.ParallelFor(10, 1, [&](int64_t begin, int64_t end, int thread) {
    EXPECT_EQ(std::this_thread::get_id(), caller);
    EXPECT_EQ(begin, 0);
    EXPECT_EQ(end, 10);
    EXPECT_EQ(thread, 0);
  });
}

TEST(ThreadPoolTest, WakesThreadsThatFellAsleep) {
  ThreadPool pool(3);
  for (int round = 0; round < 20; ++round) {
    int64_t busy = 0;
    // Long enough for the others to stop polling.
    for (int i = 0; i < 300000; ++i) {
      busy += i;
      asm volatile("" : "+r"(busy));  // keep the loop
    }
    int64_t sums[3] = {};
    pool.ParallelFor(3, 1, [&](int64_t begin, int64_t, int thread) { sums[thread] = begin + busy; });
    for (int t = 0; t < 3; ++t) EXPECT_EQ(sums[t], t + busy);
  }
}

TEST(ThreadPoolTest, LowersThePriorityOfItsOwnThreadsOnly) {
  const int before = getpriority(PRIO_PROCESS, static_cast<id_t>(syscall(SYS_gettid)));
  ThreadPool pool(2, 5);
  int seen[2] = {};
  pool.ParallelFor(2, 1, [&](int64_t, int64_t, int thread) {
    seen[thread] = getpriority(PRIO_PROCESS, static_cast<id_t>(syscall(SYS_gettid)));
  });
  EXPECT_EQ(seen[0], before);
  EXPECT_EQ(seen[1], std::min(19, before + 5));
}

TEST(ThreadPoolTest, PinsItsOwnThreadsWhereToldTo) {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  ASSERT_EQ(sched_getaffinity(0, sizeof(allowed), &allowed), 0);
  int last = 0;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &allowed)) last = cpu;
  }
  ThreadPool pool(3, 0, {last, last});
  cpu_set_t seen[3];
  pool.ParallelFor(3, 1, [&](int64_t, int64_t, int thread) {
    CPU_ZERO(&seen[thread]);
    sched_getaffinity(0, sizeof(cpu_set_t), &seen[thread]);
  });
  EXPECT_TRUE(CPU_EQUAL(&seen[0], &allowed));  // the caller's own affair
  EXPECT_EQ(CPU_COUNT(&seen[1]), 1);
  EXPECT_TRUE(CPU_ISSET(last, &seen[1]));
  EXPECT_TRUE(CPU_EQUAL(&seen[2], &allowed));  // no processor was named for it
  EXPECT_FALSE(PinThreadTo(-1));
  EXPECT_FALSE(PinThreadTo(CPU_SETSIZE));
}

}  // namespace
}  // namespace lancet
