// Ranks as threads, and as processes, over sockets of the loopback interface.
#include "worker/collective/tcp_collective.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>

#include <atomic>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "tests/worker/collective/rank_processes.h"
#include "tests/worker/collective/rank_threads.h"
#include "worker/collective/tcp_address.h"
#include "worker/collective/tcp_listener.h"
#include "worker/collective/tcp_mesh.h"

namespace lancet {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr char kKey[] = "a key that only this test knows";

// Listeners of a group on free ports of the loopback interface.
class Hosts {
 public:
  explicit Hosts(int world_size) {
    for (int rank = 0; rank < world_size; ++rank) {
      absl::StatusOr<std::unique_ptr<TcpListener>> listener = TcpListener::Create("127.0.0.1:0");
      EXPECT_TRUE(listener.ok()) << listener.status();
      addresses_.push_back((*listener)->address());
      listeners_.push_back(*std::move(listener));
    }
  }
  int world_size() const { return static_cast<int>(addresses_.size()); }

  TcpMeshOptions Options(int rank, size_t capacity, uint64_t epoch = 1) const {
    TcpMeshOptions options;
    options.addresses = addresses_;
    options.key = kKey;
    options.epoch = epoch;
    options.rank = rank;
    options.capacity_floats = capacity;
    options.listener = listeners_[rank].get();
    options.deadline = Soon();
    return options;
  }

  // Every rank as a thread of this process.
  void Run(size_t capacity, const std::function<void(TcpCollective&)>& body, uint64_t epoch = 1) const {
    std::vector<std::thread> threads;
    for (int rank = 0; rank < world_size(); ++rank) {
      threads.emplace_back([this, rank, capacity, epoch, &body] {
        absl::StatusOr<std::unique_ptr<TcpCollective>> collective =
            TcpCollective::Create(Options(rank, capacity, epoch));
        ASSERT_TRUE(collective.ok()) << collective.status();
        body(**collective);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }

  std::unique_ptr<RankProcess> Fork(int rank, const std::function<absl::Status(TcpCollective&)>& body) const {
    return std::make_unique<RankProcess>([this, rank, body]() -> absl::Status {
      LANCET_ASSIGN_OR_RETURN(std::unique_ptr<TcpCollective> collective,
                              TcpCollective::Create(Options(rank, 4096)));
      return body(*collective);
    });
  }

 private:
  std::vector<std::unique_ptr<TcpListener>> listeners_;
  std::vector<std::string> addresses_;
};

class TcpCollectiveTest : public testing::TestWithParam<int> {
 protected:
  const Hosts hosts_{GetParam()};
};

std::byte Byte(int rank, size_t i) { return static_cast<std::byte>(i * 31 + rank * 101 + i / 4096); }

TEST_P(TcpCollectiveTest, SumsInRankOrder) {
  // Whole sums, sums by slices, counts that no slice divides, more than any socket buffer.
  const size_t capacity = 3'000'001;
  hosts_.Run(capacity, [&](TcpCollective& collective) {
    for (const size_t count : {size_t{0}, size_t{1}, size_t{17}, size_t{16384}, size_t{16385}, size_t{100003},
                               capacity, size_t{3}}) {
      auto buffer = collective.PartialSumBuffer(count);
      ASSERT_TRUE(buffer.ok()) << buffer.status();
      for (size_t i = 0; i < count; ++i) (*buffer)[i] = PartialValue(collective.rank(), i);
      auto sum = collective.AllReduceSum(*buffer, Soon());
      ASSERT_TRUE(sum.ok()) << sum.status();
      ASSERT_EQ(sum->size(), count);
      for (size_t i = 0; i < count; ++i) {
        ASSERT_EQ((*sum)[i], ExpectedSum(collective.world_size(), i)) << i << " of " << count;
      }
    }
  });
}

TEST_P(TcpCollectiveTest, SumsFromTheLastResult) {
  hosts_.Run(40000, [&](TcpCollective& collective) {
    std::vector<float> ones(40000, 1.0f);
    auto sum = collective.AllReduceSum(ones, Soon());
    ASSERT_TRUE(sum.ok()) << sum.status();
    auto again = collective.AllReduceSum(*sum, Soon());
    ASSERT_TRUE(again.ok()) << again.status();
    const float expected = static_cast<float>(collective.world_size() * collective.world_size());
    EXPECT_EQ(std::count(again->begin(), again->end(), expected), 40000);
  });
}

TEST_P(TcpCollectiveTest, GathersAndBroadcasts) {
  const int world_size = hosts_.world_size();
  hosts_.Run(16, [&](TcpCollective& collective) {
    for (const size_t size : {size_t{0}, size_t{1}, size_t{1001}, size_t{2'000'003}}) {
      std::vector<std::byte> mine(size);
      for (size_t i = 0; i < size; ++i) mine[i] = Byte(collective.rank(), i);
      std::vector<std::byte> all(size * world_size);
      const absl::Status gathered = collective.AllGather(mine, absl::MakeSpan(all), Soon());
      ASSERT_TRUE(gathered.ok()) << gathered;
      for (int rank = 0; rank < world_size; ++rank) {
        for (size_t i = 0; i < size; ++i) ASSERT_EQ(all[rank * size + i], Byte(rank, i)) << rank << " " << i;
      }
      const int root = static_cast<int>(size) % world_size;
      const absl::Status sent = collective.Broadcast(absl::MakeSpan(mine), root, Soon());
      ASSERT_TRUE(sent.ok()) << sent;
      for (size_t i = 0; i < size; ++i) ASSERT_EQ(mine[i], Byte(root, i)) << i;
    }
  });
}

TEST_P(TcpCollectiveTest, BarrierLetsNobodyThroughEarly) {
  std::atomic<int> entered = 0;
  hosts_.Run(0, [&](TcpCollective& collective) {
    for (int round = 1; round <= 100; ++round) {
      entered.fetch_add(1);
      const absl::Status status = collective.Barrier(Soon());
      ASSERT_TRUE(status.ok()) << status;
      ASSERT_GE(entered.load(), round * collective.world_size());
    }
  });
}

INSTANTIATE_TEST_SUITE_P(WorldSizes, TcpCollectiveTest, testing::Values(2, 3, 4),
                         [](const auto& param_info) { return "Ranks" + std::to_string(param_info.param); });

TEST(TcpCollectiveFailureTest, DeadlineNamesTheMissingRankAndEndsThePeers) {
  const Hosts hosts(3);
  std::vector<absl::Status> results(3);
  hosts.Run(16, [&](TcpCollective& collective) {
    if (collective.rank() == 0) {
      results[0] = collective.Barrier(absl::Now() + absl::Milliseconds(50));
      EXPECT_EQ(collective.Barrier(Soon()), results[0]);
    } else if (collective.rank() == 2) {
      results[2] = collective.Barrier(Soon());
    } else {
      // Stays until the others have come out.
      std::byte nothing;
      results[1] = collective.Broadcast(absl::MakeSpan(&nothing, 1), 5, Soon());
      EXPECT_EQ(results[1].code(), absl::StatusCode::kInvalidArgument);
    }
  });
  // Rank 1 breaks the group at once, so rank 0 meets either.
  EXPECT_TRUE(absl::IsDeadlineExceeded(results[0]) || absl::IsUnavailable(results[0])) << results[0];
  EXPECT_FALSE(results[2].ok());
}

TEST(TcpCollectiveFailureTest, StoppedRankIsADeadlineOthersAreReleased) {
  const Hosts hosts(3);
  const auto rank2 = hosts.Fork(2, [](TcpCollective& collective) {
    raise(SIGSTOP);
    return collective.Barrier(Soon());
  });
  const auto rank1 = hosts.Fork(1, [](TcpCollective& collective) { return collective.Barrier(Soon()); });
  const auto rank0 = hosts.Fork(
      0, [](TcpCollective& collective) { return collective.Barrier(absl::Now() + absl::Milliseconds(300)); });
  const absl::Status status = rank0->Join();
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("rank 2 did not come"), HasSubstr("Barrier")));
  EXPECT_TRUE(absl::IsUnavailable(rank1->Join()));
}

TEST(TcpCollectiveFailureTest, KilledRankIsNamedAtOnce) {
  const Hosts hosts(3);
  const auto waits = [](TcpCollective& collective) {
    const absl::Time begin = absl::Now();
    const absl::Status status = collective.AllReduceSum(std::vector<float>(4096), Soon()).status();
    return absl::Now() - begin < absl::Seconds(20) ? status : absl::InternalError("noticed too late");
  };
  const auto rank0 = hosts.Fork(0, waits);
  const auto rank2 = hosts.Fork(2, waits);
  const auto rank1 = hosts.Fork(1, [&](TcpCollective& collective) {
    raise(SIGKILL);
    return waits(collective);
  });
  EXPECT_TRUE(absl::IsAborted(rank1->Join()));
  // The first to notice breaks the group, so the second may see the first one go.
  for (const absl::Status& status : {rank0->Join(), rank2->Join()}) {
    EXPECT_TRUE(absl::IsUnavailable(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("is gone"));
  }
}

TEST(TcpCollectiveFailureTest, AbortFromAnotherThreadEndsTheCall) {
  const Hosts hosts(2);
  std::atomic<bool> aborted = false;
  hosts.Run(16, [&](TcpCollective& collective) {
    if (collective.rank() == 1) {
      while (!aborted.load()) std::this_thread::yield();
      // What rank 0 had said before may still complete this rank's first call.
      collective.Barrier(Soon()).IgnoreError();
      EXPECT_TRUE(absl::IsUnavailable(collective.Barrier(Soon())));
      return;
    }
    std::thread aborter([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      collective.Abort(absl::CancelledError("the epoch is over"));
    });
    EXPECT_EQ(collective.Barrier(Soon()), absl::CancelledError("the epoch is over"));
    aborter.join();
    aborted.store(true);
    EXPECT_EQ(collective.PartialSumBuffer(1).status(), absl::CancelledError("the epoch is over"));
  });
}

TEST(TcpCollectiveFailureTest, CheckNoticesARankThatLeavesWithoutACall) {
  const Hosts hosts(2);
  const auto rank0 = hosts.Fork(0, [](TcpCollective& collective) -> absl::Status {
    // Data of a call to come is no reason to worry.
    const absl::Status first = collective.Check();
    if (!first.ok() && !absl::IsUnavailable(first)) return absl::InternalError(first.ToString());
    const absl::Time end = Soon();
    absl::Status status;
    while (status.ok() && absl::Now() < end) status = collective.Check();
    return status;
  });
  const auto rank1 = hosts.Fork(1, [](TcpCollective&) { return absl::OkStatus(); });
  EXPECT_TRUE(rank1->Join().ok());
  const absl::Status status = rank0->Join();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("rank 1 is gone"));
}

TEST(TcpCollectiveFailureTest, DifferentCallsAreNamed) {
  const Hosts hosts(2);
  std::vector<absl::Status> results(2);
  hosts.Run(64, [&](TcpCollective& collective) {
    results[collective.rank()] = collective.rank() == 0
                                     ? collective.Barrier(Soon())
                                     : collective.AllReduceSum(std::vector<float>(64), Soon()).status();
  });
  EXPECT_TRUE(absl::IsInternal(results[0]) || absl::IsInternal(results[1])) << results[0] << results[1];
  const absl::Status& named = absl::IsInternal(results[0]) ? results[0] : results[1];
  EXPECT_THAT(std::string(named.message()),
              AllOf(HasSubstr("Barrier"), HasSubstr("AllReduceSum of 64 floats")));
}

TEST(TcpMeshTest, EpochsFormOneAfterTheOtherOnTheSameListeners) {
  const Hosts hosts(3);
  for (uint64_t epoch = 1; epoch <= 3; ++epoch) {
    hosts.Run(
        16, [](TcpCollective& collective) { EXPECT_TRUE(collective.Barrier(Soon()).ok()); }, epoch);
  }
}

TEST(TcpMeshTest, StrangersAreTurnedAway) {
  const Hosts hosts(2);
  // Without a word, with noise, and with the right form but another key.
  std::vector<FileDescriptor> strangers;
  const absl::StatusOr<TcpAddress> address = ResolveTcpAddress(hosts.Options(0, 16).addresses[0]);
  ASSERT_TRUE(address.ok()) << address.status();
  for (int i = 0; i < 8; ++i) {
    FileDescriptor fd(socket(address->family(), SOCK_STREAM, 0));
    ASSERT_EQ(connect(fd.get(), address->get(), address->length), 0);
    const std::string noise(i * 40, 'x');
    ASSERT_EQ(send(fd.get(), noise.data(), noise.size(), MSG_NOSIGNAL), static_cast<ssize_t>(noise.size()));
    strangers.push_back(std::move(fd));
  }
  std::thread impostor([&] {
    TcpMeshOptions options = hosts.Options(1, 16);
    options.key = "another key, of the right size";
    const absl::Status status = ConnectTcpMesh(options).status();
    EXPECT_TRUE(absl::IsPermissionDenied(status)) << status;
  });
  std::thread rank0([&] {
    const auto collective = TcpCollective::Create(hosts.Options(0, 16));
    ASSERT_TRUE(collective.ok()) << collective.status();
    EXPECT_TRUE((*collective)->Barrier(Soon()).ok());
  });
  impostor.join();
  const auto collective = TcpCollective::Create(hosts.Options(1, 16));
  ASSERT_TRUE(collective.ok()) << collective.status();
  EXPECT_TRUE((*collective)->Barrier(Soon()).ok());
  rank0.join();
}

TEST(TcpMeshTest, MissingRankIsNamedAndCancellingEndsTheWait) {
  const Hosts hosts(2);
  TcpMeshOptions options = hosts.Options(0, 16);
  options.deadline = absl::Now() + absl::Milliseconds(50);
  const absl::Status late = ConnectTcpMesh(options).status();
  EXPECT_TRUE(absl::IsDeadlineExceeded(late)) << late;
  EXPECT_THAT(std::string(late.message()), HasSubstr("rank 1"));
  options.deadline = Soon();
  options.cancelled = [] { return true; };
  EXPECT_TRUE(absl::IsCancelled(ConnectTcpMesh(options).status()));
}

TEST(TcpMeshTest, BadOptionsAreNamed) {
  const Hosts hosts(2);
  TcpMeshOptions options = hosts.Options(0, 16);
  options.key = "short";
  EXPECT_THAT(std::string(ConnectTcpMesh(options).status().message()), HasSubstr("5 bytes"));
  options = hosts.Options(0, 16);
  options.rank = 2;
  EXPECT_TRUE(absl::IsInvalidArgument(ConnectTcpMesh(options).status()));
  options = hosts.Options(0, 16);
  options.addresses.resize(1);
  EXPECT_TRUE(absl::IsInvalidArgument(ConnectTcpMesh(options).status()));
}

TEST(TcpListenerTest, RefusesWhatPeersCouldNotDial) {
  for (const char* address : {"0.0.0.0:0", "[::]:0", "127.0.0.1", "127.0.0.1:70000", ":1", ""}) {
    EXPECT_TRUE(absl::IsInvalidArgument(TcpListener::Create(address).status())) << address;
  }
  const auto first = TcpListener::Create("127.0.0.1:0");
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_TRUE(absl::IsUnavailable(TcpListener::Create((*first)->address()).status()));
}

}  // namespace
}  // namespace lancet
