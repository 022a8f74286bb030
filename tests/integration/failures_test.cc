// What dies, hangs or leaves, and how the rest goes on.
#include <signal.h>

#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "tests/integration/await_condition.h"
#include "tests/integration/cluster.h"
#include "tests/integration/requests.h"

namespace lancet {
namespace {

constexpr int kEndlessSteps = 10000;
// Promised to clients of a worker that died.
constexpr absl::Duration kNotice = absl::Seconds(3);
// One that hangs is only noticed by its silence: 2 s, plus a busy machine's share.
constexpr absl::Duration kHangNotice = absl::Seconds(6);

class FailuresTest : public testing::Test {
 protected:
  void SetUp() override {
    auto cluster = Cluster::Start(NanoCluster(2));
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    cluster_ = *std::move(cluster);
  }

  static GenerationRequest Request(int steps) {
    GenerationRequest request = MakeRequest("a cat", steps);
    request.size = {64, 64};
    return request;
  }

  void ExpectServes() {
    const absl::Status serving = cluster_->AwaitHealth(Health::kServing);
    ASSERT_TRUE(serving.ok()) << serving;
    EventLog events;
    const auto result = cluster_->client().Generate(Request(2), &events, nullptr);
    EXPECT_TRUE(result.ok()) << result.status() << cluster_->Logs();
  }

  std::unique_ptr<Cluster> cluster_;
};

TEST_F(FailuresTest, KilledWorkerIsNoticedAndRejoins) {
  for (const int rank : {1, 0}) {
    RunningRequest request(cluster_->client(), Request(kEndlessSteps));
    ASSERT_TRUE(request.AwaitSteps(3)) << cluster_->Logs();
    cluster_->worker(rank).Signal(SIGKILL);
    const absl::Status health = cluster_->AwaitHealth(Health::kNotServing, kNotice);
    EXPECT_TRUE(health.ok()) << health;
    // The other rank stays, with its weights; only the dead one is started again.
    EXPECT_TRUE(cluster_->worker(1 - rank).Running());
    EXPECT_FALSE(request.Ended());
    ASSERT_TRUE(cluster_->StartWorker(rank).ok());
    ExpectServes();
    EXPECT_FALSE(request.Ended());
  }
}

TEST_F(FailuresTest, StoppedWorkerIsNoticedAndComesBack) {
  RunningRequest request(cluster_->client(), Request(kEndlessSteps));
  ASSERT_TRUE(request.AwaitSteps(3)) << cluster_->Logs();
  cluster_->worker(1).Signal(SIGSTOP);
  const absl::Status health = cluster_->AwaitHealth(Health::kNotServing, kHangNotice);
  EXPECT_TRUE(health.ok()) << health;
  cluster_->worker(1).Signal(SIGCONT);
  ExpectServes();
  EXPECT_FALSE(request.Ended());
  EXPECT_TRUE(cluster_->worker(0).Running());
  EXPECT_TRUE(cluster_->worker(1).Running());
}

TEST_F(FailuresTest, CoordinatorComesBackToItsWorkers) {
  {
    RunningRequest request(cluster_->client(), Request(kEndlessSteps));
    ASSERT_TRUE(request.AwaitSteps(3)) << cluster_->Logs();
    cluster_->coordinator().Signal(SIGKILL);
    const auto result = request.Result();
    EXPECT_EQ(result.status().code(), absl::StatusCode::kUnavailable) << result.status();
  }
  ASSERT_TRUE(cluster_->coordinator().AwaitEnd(kClusterDeadline).has_value());
  ASSERT_TRUE(cluster_->StartCoordinator().ok()) << cluster_->Logs();
  ExpectServes();
  EXPECT_TRUE(cluster_->worker(0).Running());
  EXPECT_TRUE(cluster_->worker(1).Running());
}

TEST_F(FailuresTest, DrainFinishesWhatRunsAndRefusesWhatComes) {
  // Long enough to be still running when the newcomer comes.
  RunningRequest running(cluster_->client(), Request(1000));
  ASSERT_TRUE(running.AwaitSteps(1)) << cluster_->Logs();
  cluster_->coordinator().Signal(SIGTERM);
  const absl::Status health = cluster_->AwaitHealth(Health::kNotServing);
  EXPECT_TRUE(health.ok()) << health;
  EventLog events;
  const auto refused = cluster_->client().Generate(Request(2), &events, nullptr);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kUnavailable) << refused.status();
  const auto result = running.Result();
  EXPECT_TRUE(result.ok()) << result.status() << cluster_->Logs();
  const auto end = cluster_->coordinator().AwaitEnd(kClusterDeadline);
  ASSERT_TRUE(end.has_value()) << cluster_->Logs();
  EXPECT_EQ(end->exit_code, 0) << cluster_->Logs();
}

TEST_F(FailuresTest, WorkersLeaveOnSigterm) {
  for (const int rank : {0, 1}) {
    cluster_->worker(rank).Signal(SIGTERM);
    const auto end = cluster_->worker(rank).AwaitEnd(kClusterDeadline);
    ASSERT_TRUE(end.has_value()) << cluster_->Logs();
    EXPECT_EQ(end->exit_code, 0) << cluster_->Logs();
  }
  const absl::Status health = cluster_->AwaitHealth(Health::kNotServing, kNotice);
  EXPECT_TRUE(health.ok()) << health;
}

}  // namespace
}  // namespace lancet
