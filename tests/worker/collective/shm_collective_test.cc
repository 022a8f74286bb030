// Ranks as threads over an unnamed segment.
#include "worker/collective/shm_collective.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "tests/worker/collective/rank_threads.h"

namespace lancet {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::vector<float> Partial(int rank, size_t count) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) {
    values[i] = PartialValue(rank, i);
  }
  return values;
}

// Byte `i` of what rank `rank` hands over.
std::byte Byte(int rank, size_t i) { return static_cast<std::byte>(i * 31 + rank * 101 + i / 4096); }

class ShmCollectiveTest : public testing::TestWithParam<int> {
 protected:
  const int world_size_ = GetParam();
};

TEST_P(ShmCollectiveTest, SumsInRankOrderFromItsOwnBuffer) {
  const Group group = MakeGroup(world_size_, 100003);
  ASSERT_EQ(group.size(), static_cast<size_t>(world_size_));
  RunRanks(group, [&](ShmCollective& collective) {
    for (const size_t count : {size_t{0}, size_t{1}, size_t{17}, size_t{4096}, size_t{100003}, size_t{3}}) {
      auto buffer = collective.PartialSumBuffer(count);
      ASSERT_TRUE(buffer.ok()) << buffer.status();
      for (size_t i = 0; i < count; ++i) {
        (*buffer)[i] = PartialValue(collective.rank(), i);
      }
      auto sum = collective.AllReduceSum(*buffer, Soon());
      ASSERT_TRUE(sum.ok()) << sum.status();
      ASSERT_EQ(sum->size(), count);
      for (size_t i = 0; i < count; ++i) {
        ASSERT_EQ((*sum)[i], ExpectedSum(world_size_, i)) << i << " of " << count;
      }
    }
  });
}

TEST_P(ShmCollectiveTest, SumsFromOtherMemoryAndFromTheLastResult) {
  const Group group = MakeGroup(world_size_, 1000);
  RunRanks(group, [&](ShmCollective& collective) {
    auto sum = collective.AllReduceSum(Partial(collective.rank(), 1000), Soon());
    ASSERT_TRUE(sum.ok()) << sum.status();
    auto again = collective.AllReduceSum(*sum, Soon());
    ASSERT_TRUE(again.ok()) << again.status();
    for (size_t i = 0; i < 1000; ++i) {
      float expected = ExpectedSum(world_size_, i);
      const float once = expected;
      for (int rank = 1; rank < world_size_; ++rank) {
        expected += once;
      }
      ASSERT_EQ((*again)[i], expected) << i;
    }
  });
}

TEST_P(ShmCollectiveTest, ResultStaysWhilePeersFillTheirNextPartial) {
  const Group group = MakeGroup(world_size_, 5000);
  RunRanks(group, [&](ShmCollective& collective) {
    for (int round = 0; round < 50; ++round) {
      auto buffer = collective.PartialSumBuffer(5000);
      ASSERT_TRUE(buffer.ok()) << buffer.status();
      std::fill(buffer->begin(), buffer->end(), static_cast<float>(round + collective.rank()));
      auto sum = collective.AllReduceSum(*buffer, Soon());
      ASSERT_TRUE(sum.ok()) << sum.status();
      // The ranks read at different times while the others go on to the next round.
      for (int i = 0; i < (round + collective.rank()) % 3; ++i) {
        std::this_thread::yield();
      }
      const int sum_of_ranks = world_size_ * (world_size_ - 1) / 2;
      const auto expected = static_cast<float>(world_size_ * round + sum_of_ranks);
      ASSERT_EQ(std::count(sum->begin(), sum->end(), expected), 5000) << round;
    }
  });
}

TEST_P(ShmCollectiveTest, GathersInRankOrderAlsoBeyondTheExchangeArea) {
  const Group group = MakeGroup(world_size_, 16);
  RunRanks(group, [&](ShmCollective& collective) {
    for (const size_t size :
         {size_t{0}, size_t{1}, size_t{1001}, kShmExchangeBytes, 3 * kShmExchangeBytes + 7}) {
      std::vector<std::byte> mine(size);
      for (size_t i = 0; i < size; ++i) {
        mine[i] = Byte(collective.rank(), i);
      }
      std::vector<std::byte> all(size * world_size_);
      const absl::Status status = collective.AllGather(mine, absl::MakeSpan(all), Soon());
      ASSERT_TRUE(status.ok()) << status;
      for (int rank = 0; rank < world_size_; ++rank) {
        for (size_t i = 0; i < size; ++i) {
          ASSERT_EQ(all[rank * size + i], Byte(rank, i))
              << "rank " << rank << ", byte " << i << " of " << size;
        }
      }
    }
  });
}

TEST_P(ShmCollectiveTest, BroadcastsFromEveryRootAlsoBeyondTheExchangeArea) {
  const Group group = MakeGroup(world_size_, 16);
  RunRanks(group, [&](ShmCollective& collective) {
    for (int root = 0; root < world_size_; ++root) {
      for (const size_t size : {size_t{0}, size_t{5}, 2 * kShmExchangeBytes + 1}) {
        std::vector<std::byte> data(size);
        for (size_t i = 0; i < size && collective.rank() == root; ++i) {
          data[i] = Byte(root, i);
        }
        const absl::Status status = collective.Broadcast(absl::MakeSpan(data), root, Soon());
        ASSERT_TRUE(status.ok()) << status;
        for (size_t i = 0; i < size; ++i) {
          ASSERT_EQ(data[i], Byte(root, i)) << i;
        }
      }
    }
  });
}

TEST_P(ShmCollectiveTest, BarrierLetsNobodyThroughEarly) {
  const Group group = MakeGroup(world_size_, 0);
  std::atomic<int> entered = 0;
  RunRanks(group, [&](ShmCollective& collective) {
    for (int round = 1; round <= 200; ++round) {
      entered.fetch_add(1);
      const absl::Status status = collective.Barrier(Soon());
      ASSERT_TRUE(status.ok()) << status;
      ASSERT_GE(entered.load(), round * world_size_);
    }
  });
}

INSTANTIATE_TEST_SUITE_P(WorldSizes, ShmCollectiveTest, testing::Values(1, 2, 3, 4),
                         [](const auto& param_info) { return "Ranks" + std::to_string(param_info.param); });

TEST(ShmCollectiveFailureTest, DeadlineNamesTheMissingRankAndBreaksTheGroup) {
  const Group group = MakeGroup(3, 16);
  std::vector<absl::Status> results(3);
  RunRanks(group, [&](ShmCollective& collective) {
    if (collective.rank() != 1) {
      results[collective.rank()] = collective.Barrier(absl::Now() + absl::Milliseconds(20));
    }
  });
  for (const int rank : {0, 2}) {
    EXPECT_EQ(results[rank].code(), absl::StatusCode::kDeadlineExceeded) << results[rank];
    EXPECT_THAT(std::string(results[rank].message()),
                AllOf(HasSubstr("rank 1 did not come"), HasSubstr("Barrier")));
  }
  // The late rank learns of it at once, and everybody gets the same error for every call from now on.
  EXPECT_EQ(group[1]->Barrier(Soon()), results[0]);
  EXPECT_EQ(group[2]->Barrier(Soon()), results[0]);
  EXPECT_EQ(group[0]->PartialSumBuffer(1).status(), results[0]);
  EXPECT_EQ(group[0]->AllReduceSum(Partial(0, 3), Soon()).status(), results[0]);
}

TEST(ShmCollectiveFailureTest, DeadlineInThePastIsNoErrorWhenAllHaveCome) {
  const Group group = MakeGroup(2, 16);
  std::thread peer([&] { EXPECT_TRUE(group[1]->Barrier(Soon()).ok()); });
  EXPECT_TRUE(group[0]->Barrier(absl::InfiniteFuture()).ok());
  peer.join();
}

TEST(ShmCollectiveFailureTest, AbortWakesTheBlockedRankAndItsPeers) {
  for (int round = 0; round < 20; ++round) {
    const Group group = MakeGroup(3, 16);
    std::vector<absl::Status> results(3);
    std::thread aborter;
    RunRanks(group, [&](ShmCollective& collective) {
      if (collective.rank() == 0) {
        aborter = std::thread([&] { collective.Abort(absl::CancelledError("the epoch is over")); });
      }
      // Rank 2 never comes, so the others are blocked or will be.
      if (collective.rank() != 2) {
        results[collective.rank()] = collective.AllReduceSum(Partial(0, 16), Soon()).status();
      }
    });
    aborter.join();
    EXPECT_EQ(results[0], absl::CancelledError("the epoch is over"));
    EXPECT_EQ(results[1], absl::CancelledError("rank 0 aborted the group: the epoch is over"));
    EXPECT_EQ(group[2]->Barrier(Soon()), results[1]);
    EXPECT_EQ(group[0]->Barrier(Soon()), results[0]);
  }
}

TEST(ShmCollectiveFailureTest, FirstAbortCountsAndOkBecomesAnError) {
  const Group group = MakeGroup(2, 16);
  group[0]->Abort(absl::OkStatus());
  group[0]->Abort(absl::InternalError("too late"));
  EXPECT_EQ(group[0]->Barrier(Soon()).code(), absl::StatusCode::kAborted);
  EXPECT_EQ(group[1]->Barrier(Soon()).code(), absl::StatusCode::kAborted);
}

TEST(ShmCollectiveFailureTest, LongReasonIsCutOnItsWayToThePeers) {
  const Group group = MakeGroup(2, 16);
  group[0]->Abort(absl::UnavailableError(std::string(5000, 'x')));
  const absl::Status seen = group[1]->Barrier(Soon());
  EXPECT_EQ(seen.code(), absl::StatusCode::kUnavailable);
  EXPECT_LE(seen.message().size(), 1000u);
  EXPECT_THAT(std::string(seen.message()), HasSubstr("rank 0 aborted the group: xxx"));
}

TEST(ShmCollectiveFailureTest, DifferentCallsAreNamedOnEveryRank) {
  const Group group = MakeGroup(3, 64);
  std::vector<absl::Status> results(3);
  RunRanks(group, [&](ShmCollective& collective) {
    results[collective.rank()] = collective.rank() == 2
                                     ? collective.Barrier(Soon())
                                     : collective.AllReduceSum(Partial(0, 64), Soon()).status();
  });
  for (const absl::Status& result : results) {
    EXPECT_EQ(result, absl::InternalError("the ranks make different calls: rank 0 AllReduceSum of 64 floats, "
                                          "rank 2 Barrier"));
  }
}

TEST(ShmCollectiveFailureTest, DifferentSizesAndRootsAreNamed) {
  {
    const Group group = MakeGroup(2, 64);
    RunRanks(group, [&](ShmCollective& collective) {
      const size_t count = 10 + collective.rank();
      EXPECT_EQ(collective.AllReduceSum(Partial(0, count), Soon()).status(),
                absl::InternalError("the ranks make different calls: rank 0 AllReduceSum of 10 floats, "
                                    "rank 1 AllReduceSum of 11 floats"));
    });
  }
  {
    // Different numbers of chunks as well.
    const Group group = MakeGroup(2, 64);
    RunRanks(group, [&](ShmCollective& collective) {
      std::vector<std::byte> data(collective.rank() == 0 ? 8 : 8 * kShmExchangeBytes);
      EXPECT_EQ(collective.Broadcast(absl::MakeSpan(data), 0, Soon()).code(), absl::StatusCode::kInternal);
    });
  }
  {
    const Group group = MakeGroup(2, 64);
    RunRanks(group, [&](ShmCollective& collective) {
      std::vector<std::byte> data(8);
      EXPECT_EQ(
          collective.Broadcast(absl::MakeSpan(data), collective.rank(), Soon()),
          absl::InternalError("the ranks make different calls: rank 0 Broadcast of 8 bytes from rank 0, "
                              "rank 1 Broadcast of 8 bytes from rank 1"));
    });
  }
}

TEST(ShmCollectiveFailureTest, BadArgumentsAreNamedAndFreeThePeers) {
  {
    const Group group = MakeGroup(2, 64);
    EXPECT_EQ(group[0]->PartialSumBuffer(65).status().code(), absl::StatusCode::kInvalidArgument);
    const absl::Status refused = group[0]->AllReduceSum(Partial(0, 65), Soon()).status();
    EXPECT_EQ(refused, absl::InvalidArgumentError("AllReduceSum: 65 floats are above the capacity of 64"));
    EXPECT_EQ(group[1]->AllReduceSum(Partial(1, 64), Soon()).status(), refused);
  }
  {
    const Group group = MakeGroup(2, 64);
    std::vector<std::byte> all(5);
    const std::vector<std::byte> mine(2);
    EXPECT_EQ(group[0]->AllGather(mine, absl::MakeSpan(all), Soon()),
              absl::InvalidArgumentError("AllGather: `all` has 5 bytes, expected 2 ranks * 2"));
  }
  {
    const Group group = MakeGroup(2, 64);
    std::vector<std::byte> data(5);
    EXPECT_EQ(group[0]->Broadcast(absl::MakeSpan(data), 2, Soon()),
              absl::InvalidArgumentError("Broadcast: root 2 is outside [0, 2)"));
  }
}

TEST(ShmCollectiveFailureTest, RankThatLeavesIsNamed) {
  Group group = MakeGroup(2, 64);
  std::thread leaver([&] { group[1].reset(); });
  const absl::Status status = group[0]->Barrier(Soon());
  leaver.join();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("rank 1 is gone"));
}

TEST(ShmCollectiveFailureTest, RankThatLeavesAfterTheLastCallHarmsNobody) {
  for (int round = 0; round < 50; ++round) {
    Group group = MakeGroup(2, 64);
    std::thread leaver([&] {
      EXPECT_TRUE(group[1]->Barrier(Soon()).ok());
      group[1].reset();
    });
    EXPECT_TRUE(group[0]->Barrier(Soon()).ok());
    leaver.join();
  }
}

TEST(ShmCollectiveFailureTest, CheckNoticesWithoutACall) {
  Group group = MakeGroup(3, 16);
  for (const auto& collective : group) EXPECT_TRUE(collective->Check().ok());
  group[1].reset();
  const absl::Status status = group[0]->Check();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_NE(status.message().find("rank 1 is gone"), absl::string_view::npos) << status;
  EXPECT_EQ(group[2]->Check(), status);
  EXPECT_EQ(group[2]->Barrier(Soon()), status);
}

TEST(ShmCollectiveFailureTest, CheckTellsOfAnAbort) {
  const Group group = MakeGroup(2, 16);
  group[1]->Abort(absl::CancelledError("the epoch is over"));
  EXPECT_EQ(group[0]->Check(), absl::CancelledError("rank 1 aborted the group: the epoch is over"));
}

TEST(ShmCollectiveFailureTest, CreateCanBeCancelled) {
  // Rank 0 waits for rank 1 in the segment, rank 1 for a segment that nobody creates.
  for (const int rank : {0, 1}) {
    ShmOptions options;
    options.segment_name = "lancet-test-cancel-" + std::to_string(getpid()) + "-" + std::to_string(rank);
    options.rank = rank;
    options.world_size = 2;
    options.capacity_floats = 16;
    options.create_deadline = Soon();
    int looks = 0;
    options.cancelled = [&looks] { return ++looks > 3; };
    EXPECT_EQ(ShmCollective::Create(options).status().code(), absl::StatusCode::kCancelled) << rank;
    EXPECT_EQ(looks, 4);
  }
}

TEST(ShmCollectiveFailureTest, GroupShapeIsChecked) {
  EXPECT_EQ(ShmCollective::CreateGroupInProcess(0, 1).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ShmCollective::CreateGroupInProcess(kShmMaxRanks + 1, 1).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ShmCollective::CreateGroupInProcess(1, kShmMaxCapacityFloats + 1).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace lancet
