// Long random sequences of calls, with and without an abort in the midst; ranks as threads.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/worker/collective/rank_threads.h"
#include "worker/collective/shm_collective.h"

namespace lancet {
namespace {

constexpr size_t kCapacity = 20000;

// One random call, the same on all ranks as `random` is in the same state on all; the status if it failed,
// and a test failure if the result is wrong.
absl::Status RandomCall(ShmCollective& collective, std::minstd_rand& random) {
  const int world_size = collective.world_size();
  const size_t size = random() % 4 == 0 ? random() % kCapacity : random() % 100;
  const int kind = static_cast<int>(random() % 4);
  const int root = static_cast<int>(random() % world_size);
  const float seed = static_cast<float>(random() % 1000);
  const float mine = seed + static_cast<float>(collective.rank());
  switch (kind) {
    case 0:
      return collective.Barrier(Soon());
    case 1: {
      std::vector<float> data(size, mine);
      const absl::Status status = collective.Broadcast(
          absl::MakeSpan(reinterpret_cast<std::byte*>(data.data()), size * sizeof(float)), root, Soon());
      if (status.ok()) {
        EXPECT_EQ(data, std::vector<float>(size, seed + static_cast<float>(root)));
      }
      return status;
    }
    case 2: {
      std::vector<float> all(world_size);
      const absl::Status status = collective.AllGather(
          absl::MakeConstSpan(reinterpret_cast<const std::byte*>(&mine), sizeof(mine)),
          absl::MakeSpan(reinterpret_cast<std::byte*>(all.data()), world_size * sizeof(float)), Soon());
      for (int rank = 0; status.ok() && rank < world_size; ++rank) {
        EXPECT_EQ(all[rank], seed + static_cast<float>(rank));
      }
      return status;
    }
    default: {
      absl::StatusOr<absl::Span<float>> buffer = collective.PartialSumBuffer(size);
      if (!buffer.ok()) {
        return buffer.status();
      }
      std::fill(buffer->begin(), buffer->end(), mine);
      auto sum = collective.AllReduceSum(*buffer, Soon());
      if (!sum.ok()) {
        return sum.status();
      }
      // Small integers, so the sum is exact.
      const int sum_of_ranks = world_size * (world_size - 1) / 2;
      const float expected = seed * static_cast<float>(world_size) + static_cast<float>(sum_of_ranks);
      EXPECT_EQ(std::count(sum->begin(), sum->end(), expected), static_cast<std::ptrdiff_t>(size));
      return absl::OkStatus();
    }
  }
}

TEST(ShmStressTest, RandomCallsAtRandomSpeeds) {
  for (const int world_size : {2, 3, 4}) {
    const Group group = MakeGroup(world_size, kCapacity);
    RunRanks(group, [&](ShmCollective& collective) {
      std::minstd_rand random(17);                     // the calls
      std::minstd_rand pace(100 + collective.rank());  // when this rank makes them
      for (int call = 0; call < 2000; ++call) {
        if (pace() % 8 == 0) {
          std::this_thread::yield();
        }
        const absl::Status status = RandomCall(collective, random);
        ASSERT_TRUE(status.ok()) << "call " << call << ": " << status;
      }
    });
  }
}

TEST(ShmStressTest, AbortAtAnyMomentEndsEveryRank) {
  for (unsigned round = 0; round < 100; ++round) {
    const int world_size = 2 + static_cast<int>(round % 3);
    const int aborting_rank = static_cast<int>(round / 3 % world_size);
    const Group group = MakeGroup(world_size, kCapacity);
    std::atomic<int> calls_of_aborting_rank = 0;
    std::thread aborter([&] {
      while (calls_of_aborting_rank.load() < static_cast<int>(round)) {
        std::this_thread::yield();
      }
      group[aborting_rank]->Abort(absl::CancelledError("enough"));
    });
    RunRanks(group, [&](ShmCollective& collective) {
      std::minstd_rand random(round + 1);
      absl::Status status;
      while (status.ok()) {
        status = RandomCall(collective, random);
        calls_of_aborting_rank += collective.rank() == aborting_rank ? 1 : 0;
      }
      EXPECT_EQ(status, absl::CancelledError(
                            collective.rank() == aborting_rank
                                ? "enough"
                                : absl::StrCat("rank ", aborting_rank, " aborted the group: enough")));
    });
    aborter.join();
  }
}

}  // namespace
}  // namespace lancet
