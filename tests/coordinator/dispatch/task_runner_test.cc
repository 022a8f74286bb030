#include "coordinator/dispatch/task_runner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <thread>
#include <vector>

namespace lancet {
namespace {

// Every wait of these tests ends by itself.
constexpr std::chrono::seconds kLong(20);

TaskRunner::Options WithThreads(int threads, size_t capacity) {
  TaskRunner::Options options;
  options.num_threads = threads;
  options.capacity = capacity;
  return options;
}

TEST(TaskRunnerTest, OneThreadKeepsTheOrder) {
  std::vector<int> order;
  {
    TaskRunner runner(WithThreads(1, 100));
    for (int i = 0; i < 50; ++i) ASSERT_TRUE(runner.TryPost([&order, i] { order.push_back(i); }));
  }
  ASSERT_EQ(order.size(), 50u);
  for (int i = 0; i < 50; ++i) EXPECT_EQ(order[i], i);
}

TEST(TaskRunnerTest, RefusesWhatDoesNotFitButTakesWhatMustNotBeLost) {
  std::promise<void> entered;
  std::promise<void> release;
  std::atomic<int> ran{0};
  TaskRunner runner(WithThreads(1, 2));
  runner.TryPost([&] {
    entered.set_value();
    release.get_future().wait_for(kLong);
  });
  ASSERT_EQ(entered.get_future().wait_for(kLong), std::future_status::ready);
  EXPECT_TRUE(runner.TryPost([&ran] { ++ran; }));
  EXPECT_TRUE(runner.TryPost([&ran] { ++ran; }));
  EXPECT_FALSE(runner.TryPost([&ran] { ++ran; }));
  EXPECT_TRUE(runner.Post([&ran] { ++ran; }));
  release.set_value();
  runner.Stop();
  EXPECT_EQ(ran, 3);
  EXPECT_FALSE(runner.Post([] {}));
  EXPECT_FALSE(runner.TryPost([] {}));
}

TEST(TaskRunnerTest, TicksWhileIdleAndWhileBusy) {
  std::atomic<int> ticks{0};
  std::promise<void> enough;
  TaskRunner::Options options = WithThreads(1, 10);
  options.tick_interval = absl::Milliseconds(1);
  options.tick = [&] {
    if (++ticks == 5) enough.set_value();
  };
  TaskRunner runner(options);
  EXPECT_EQ(enough.get_future().wait_for(kLong), std::future_status::ready);
  const int before = ticks;
  std::promise<void> more;
  std::function<void()> busy = [&] { ticks > before + 2 ? more.set_value() : void(runner.Post(busy)); };
  runner.Post(busy);
  EXPECT_EQ(more.get_future().wait_for(kLong), std::future_status::ready);
  runner.Stop();
}

TEST(TaskRunnerTest, ManyProducersAndThreads) {
  std::atomic<int> ran{0};
  {
    TaskRunner runner(WithThreads(3, 100000));
    std::vector<std::thread> producers;
    for (int p = 0; p < 4; ++p) {
      producers.emplace_back([&] {
        for (int i = 0; i < 500; ++i) runner.Post([&ran] { ++ran; });
      });
    }
    for (std::thread& producer : producers) producer.join();
  }
  EXPECT_EQ(ran, 2000);
}

}  // namespace
}  // namespace lancet
