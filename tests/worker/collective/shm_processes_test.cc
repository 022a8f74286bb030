// Ranks as forked processes, of which one is killed, stopped, aborted or never comes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "tests/worker/collective/rank_processes.h"
#include "tests/worker/collective/rank_threads.h"
#include "worker/collective/shm_collective.h"

namespace lancet {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class ShmProcessesTest : public testing::Test {
 protected:
  void TearDown() override { EXPECT_FALSE(SegmentNameExists(name_)); }

  ShmOptions Options(int rank, int world_size) const {
    ShmOptions options;
    options.segment_name = name_;
    options.rank = rank;
    options.world_size = world_size;
    options.capacity_floats = 4096;
    options.create_deadline = Soon();
    return options;
  }

  // Forms the group, then runs `body`.
  std::unique_ptr<RankProcess> Fork(int rank, int world_size,
                                    const std::function<absl::Status(ShmCollective&)>& body) const {
    return std::make_unique<RankProcess>([this, rank, world_size, body]() -> absl::Status {
      LANCET_ASSIGN_OR_RETURN(std::unique_ptr<ShmCollective> collective,
                              ShmCollective::Create(Options(rank, world_size)));
      if (SegmentNameExists(name_)) {
        return absl::InternalError("the segment still has its name after the group was formed");
      }
      return body(*collective);
    });
  }

  const std::string name_ = UniqueSegmentName();
};

absl::Status SumAndCheck(ShmCollective& collective, size_t count) {
  LANCET_ASSIGN_OR_RETURN(absl::Span<float> buffer, collective.PartialSumBuffer(count));
  for (size_t i = 0; i < count; ++i) {
    buffer[i] = PartialValue(collective.rank(), i);
  }
  LANCET_ASSIGN_OR_RETURN(absl::Span<const float> sum, collective.AllReduceSum(buffer, Soon()));
  for (size_t i = 0; i < count; ++i) {
    if (sum[i] != ExpectedSum(collective.world_size(), i)) {
      return absl::InternalError(absl::StrCat("wrong sum at ", i, " of ", count));
    }
  }
  return absl::OkStatus();
}

absl::Status BarrierOnly(ShmCollective& collective) { return collective.Barrier(Soon()); }

// Takes part in nothing more; the test kills it.
absl::Status Pause(ShmCollective& /*collective*/) {
  while (true) {
    pause();
  }
}

TEST_F(ShmProcessesTest, ManyRoundsOfAllCallsAgree) {
  for (const int world_size : {1, 2, 4}) {
    std::vector<std::unique_ptr<RankProcess>> ranks;
    for (int rank = 0; rank < world_size; ++rank) {
      ranks.push_back(Fork(rank, world_size, [world_size](ShmCollective& collective) -> absl::Status {
        for (size_t round = 0; round < 300; ++round) {
          LANCET_RETURN_IF_ERROR(SumAndCheck(collective, (round * 37) % 4097));
          int mine = static_cast<int>(round) * 10 + collective.rank();
          std::vector<int> all(world_size);
          LANCET_RETURN_IF_ERROR(collective.AllGather(
              absl::MakeConstSpan(reinterpret_cast<const std::byte*>(&mine), sizeof(mine)),
              absl::MakeSpan(reinterpret_cast<std::byte*>(all.data()), all.size() * sizeof(int)), Soon()));
          LANCET_RETURN_IF_ERROR(collective.Broadcast(
              absl::MakeSpan(reinterpret_cast<std::byte*>(&mine), sizeof(mine)), world_size - 1, Soon()));
          if (mine != all[world_size - 1] || all[0] != static_cast<int>(round) * 10) {
            return absl::InternalError(absl::StrCat("wrong bytes in round ", round));
          }
          LANCET_RETURN_IF_ERROR(collective.Barrier(Soon()));
        }
        return absl::OkStatus();
      }));
    }
    for (const auto& rank : ranks) {
      const absl::Status status = rank->Join();
      EXPECT_TRUE(status.ok()) << status;
    }
  }
}

TEST_F(ShmProcessesTest, KilledRankIsNamedLongBeforeTheDeadline) {
  const auto rank0 = Fork(0, 3, [](ShmCollective& collective) {
    const absl::Time start = absl::Now();
    const absl::Status status = BarrierOnly(collective);
    // The deadline is a minute away; a look at the peers every few milliseconds takes none of it.
    return absl::Now() - start < absl::Seconds(20) ? status : absl::InternalError("noticed too late");
  });
  const auto rank1 = Fork(1, 3, [](ShmCollective& collective) {
    raise(SIGKILL);
    return BarrierOnly(collective);
  });
  const auto rank2 = Fork(2, 3, BarrierOnly);
  EXPECT_EQ(rank1->Join().code(), absl::StatusCode::kAborted);
  for (const absl::Status& status : {rank0->Join(), rank2->Join()}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr("rank 1 is gone"), HasSubstr("its process has ended")));
  }
}

TEST_F(ShmProcessesTest, RankThatExitsProperlyIsNamedToo) {
  const auto rank0 = Fork(0, 2, BarrierOnly);
  const auto rank1 = Fork(1, 2, [](ShmCollective&) { return absl::OkStatus(); });
  EXPECT_TRUE(rank1->Join().ok());
  const absl::Status status = rank0->Join();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("rank 1 is gone"));
}

TEST_F(ShmProcessesTest, StoppedRankIsADeadline) {
  const auto rank1 = Fork(1, 2, [](ShmCollective& collective) {
    raise(SIGSTOP);
    return BarrierOnly(collective);
  });
  const auto rank0 = Fork(0, 2, [](ShmCollective& collective) {
    return collective.Barrier(absl::Now() + absl::Milliseconds(200));
  });
  rank1->WaitUntilStopped();
  const absl::Status status = rank0->Join();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("rank 1 did not come"));
  // Awake again, it learns that the group is broken instead of waiting for a peer that is gone.
  kill(rank1->pid(), SIGCONT);
  EXPECT_EQ(rank1->Join(), status);
}

TEST_F(ShmProcessesTest, AbortOfOneProcessEndsTheOthers) {
  const auto rank0 = Fork(0, 3, BarrierOnly);
  const auto rank1 = Fork(1, 3, [](ShmCollective& collective) {
    std::thread aborter([&] { collective.Abort(absl::CancelledError("the epoch is over")); });
    const absl::Status status = BarrierOnly(collective);
    aborter.join();
    return status;
  });
  const auto rank2 = Fork(2, 3, Pause);
  EXPECT_EQ(rank0->Join(), absl::CancelledError("rank 1 aborted the group: the epoch is over"));
  EXPECT_EQ(rank1->Join(), absl::CancelledError("the epoch is over"));
  rank2->Kill();
}

TEST_F(ShmProcessesTest, RankThatNeverComesIsNamed) {
  std::vector<std::unique_ptr<RankProcess>> ranks;
  for (const int rank : {0, 2}) {
    ranks.push_back(std::make_unique<RankProcess>([this, rank] {
      ShmOptions options = Options(rank, 3);
      options.create_deadline = absl::Now() + absl::Milliseconds(300);
      return ShmCollective::Create(options).status();
    }));
  }
  for (const auto& rank : ranks) {
    const absl::Status status = rank->Join();
    EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("rank 1 did not come"));
  }
}

TEST_F(ShmProcessesTest, RankKilledWhileTheGroupFormsIsNamed) {
  const auto rank0 = std::make_unique<RankProcess>([this] {
    // The alarm hits it while it waits for rank 2, which never comes.
    alarm(1);
    return ShmCollective::Create(Options(0, 3)).status();
  });
  const auto rank1 =
      std::make_unique<RankProcess>([this] { return ShmCollective::Create(Options(1, 3)).status(); });
  const absl::Status status = rank1->Join();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("rank 0 is gone"));
  EXPECT_EQ(rank0->Join().code(), absl::StatusCode::kAborted);
}

TEST_F(ShmProcessesTest, RankThatIsTakenIsRefused) {
  auto segment = ShmSegment::CreateNamed(name_, 2, Options(1, 2).capacity_floats);
  ASSERT_TRUE(segment.ok()) << segment.status();
  (*segment)->slot(1).pid.store(12345);
  const absl::Status status = ShmCollective::Create(Options(1, 2)).status();
  ShmSegment::Unlink(name_);
  EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists) << status;
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("rank 1"), HasSubstr("process 12345")));
}

TEST_F(ShmProcessesTest, OptionsAreChecked) {
  ShmOptions options = Options(0, 2);
  options.rank = 2;
  EXPECT_EQ(ShmCollective::Create(options).status(), absl::InvalidArgumentError("rank 2 is outside [0, 2)"));
  for (const std::string& name :
       {std::string(), std::string("a/b"), std::string(".."), std::string(201, 'a')}) {
    options = Options(0, 2);
    options.segment_name = name;
    const absl::Status status = ShmCollective::Create(options).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_THAT(std::string(status.message()), HasSubstr("segment_name"));
  }
}

}  // namespace
}  // namespace lancet
