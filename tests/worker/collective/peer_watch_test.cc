#include "worker/collective/peer_watch.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "tests/worker/collective/rank_processes.h"

namespace lancet {
namespace {

absl::Status RunUntilKilled() {
  while (true) {
    pause();
  }
}

ProcessId Neighbour(pid_t pid) { return {pid, ProcessId::Self().pid_namespace}; }

TEST(PeerWatchTest, SelfIsAlwaysAlive) {
  PeerWatch watch(2);
  watch.Watch(1, ProcessId::Self());
  EXPECT_TRUE(watch.watches(1));
  EXPECT_FALSE(watch.Ended(1));
}

TEST(PeerWatchTest, UnknownRankCountsAsAlive) {
  PeerWatch watch(2);
  EXPECT_FALSE(watch.watches(1));
  EXPECT_FALSE(watch.Ended(1));
}

TEST(PeerWatchTest, SeesThatAProcessEndsEvenBeforeItIsReaped) {
  RankProcess process(RunUntilKilled);
  PeerWatch watch(2);
  watch.Watch(1, Neighbour(process.pid()));
  EXPECT_FALSE(watch.Ended(1));
  kill(process.pid(), SIGKILL);
  const absl::Time deadline = absl::Now() + absl::Seconds(60);
  while (!watch.Ended(1) && absl::Now() < deadline) {
    sched_yield();
  }
  EXPECT_TRUE(watch.Ended(1));
}

TEST(PeerWatchTest, ProcessThatIsGoneAlreadyHasEnded) {
  RankProcess process(RunUntilKilled);
  const pid_t pid = process.pid();
  process.Kill();
  PeerWatch watch(2);
  watch.Watch(1, Neighbour(pid));
  EXPECT_TRUE(watch.Ended(1));
}

TEST(PeerWatchTest, ProcessOfAnotherPidNamespaceCannotBeSeen) {
  RankProcess process(RunUntilKilled);
  const pid_t pid = process.pid();
  process.Kill();
  PeerWatch watch(2);
  watch.Watch(1, {pid, ProcessId::Self().pid_namespace + 1});
  EXPECT_FALSE(watch.Ended(1));
}

}  // namespace
}  // namespace lancet
