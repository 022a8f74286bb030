// Real processes that die, hang, leave or are started anew under requests of all tasks: each ends as if
// nothing had happened, to the byte.
#include <signal.h>

#include <atomic>
#include <future>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "tests/integration/await_condition.h"
#include "tests/integration/cluster.h"
#include "tests/integration/requests.h"

namespace lancet {
namespace {

constexpr char kGolden[] = LANCET_SOURCE_DIR "/tests/data/nano/golden/";

GenerationRequest Drawing(int steps, RequestSampler sampler = RequestSampler::kEuler) {
  GenerationRequest request = MakeRequest("a cat", steps, 7);
  request.size = {64, 64};
  request.sampler = sampler;
  return request;
}

GenerationRequest Change(int steps) {
  GenerationRequest request = Drawing(steps, RequestSampler::kDpmpp2m);
  request.prompt = "make it red";
  request.image = ReadBytes(absl::StrCat(kGolden, "edit_256res.source.png"));
  request.sample_condition = true;
  return request;
}

DescriptionRequest Question(int tokens) {
  DescriptionRequest request =
      MakeQuestion(ReadBytes(absl::StrCat(kGolden, "x2t_256res.source.png")), "What is it?", tokens);
  request.temperature = 1;
  request.seed = 5;
  request.resolution = InputResolution::kImage256;
  return request;
}

// An answer on a thread of its own.
struct RunningAnswer {
  RunningAnswer(GenerationClient& client, const DescriptionRequest& request) {
    events.on_delta = [this] { ++deltas; };
    result = std::async(std::launch::async,
                        [this, &client, request] { return client.Describe(request, &events, nullptr); });
  }
  EventLog events;
  std::atomic<int> deltas{0};
  std::future<absl::StatusOr<DescriptionResult>> result;
};

class RecoveryE2eTest : public testing::Test {
 protected:
  void Start(ClusterOptions options) {
    auto cluster = Cluster::Start(std::move(options));
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    cluster_ = *std::move(cluster);
  }
  GenerationClient& client() { return cluster_->client(); }

  std::unique_ptr<Cluster> cluster_;
};

TEST_F(RecoveryE2eTest, EveryTaskGoesOnWhenARankIsKilledAndWhenOneHangs) {
  Start(NanoCluster(2));
  EventLog unwatched;
  const auto drawn = client().Generate(Drawing(400), &unwatched, nullptr);
  ASSERT_TRUE(drawn.ok()) << drawn.status();
  const auto changed = client().Edit(Change(400), &unwatched, nullptr);
  ASSERT_TRUE(changed.ok()) << changed.status();
  const auto answered = client().Describe(Question(200), &unwatched, nullptr);
  ASSERT_TRUE(answered.ok()) << answered.status();

  for (const int signal : {SIGKILL, SIGSTOP}) {
    RunningRequest drawing(client(), Drawing(400));
    RunningRequest change(client(), Change(400));
    RunningAnswer answer(client(), Question(200));
    ASSERT_TRUE(drawing.AwaitSteps(20) && change.AwaitSteps(20)) << cluster_->Logs();
    AwaitCondition([&] { return answer.deltas >= 5; }, kClusterDeadline);
    cluster_->worker(1).Signal(signal);
    const absl::Status lost = cluster_->AwaitHealth(Health::kNotServing);
    ASSERT_TRUE(lost.ok()) << lost;
    if (signal == SIGKILL) {
      ASSERT_TRUE(cluster_->StartWorker(1).ok());
    } else {
      cluster_->worker(1).Signal(SIGCONT);
    }
    const auto drawn_again = drawing.Result();
    ASSERT_TRUE(drawn_again.ok()) << drawn_again.status() << cluster_->Logs();
    const auto changed_again = change.Result();
    ASSERT_TRUE(changed_again.ok()) << changed_again.status() << cluster_->Logs();
    const auto answered_again = answer.result.get();
    ASSERT_TRUE(answered_again.ok()) << answered_again.status() << cluster_->Logs();
    EXPECT_EQ(drawn_again->image.data, drawn->image.data);
    EXPECT_EQ(changed_again->image.data, changed->image.data);
    EXPECT_EQ(answered_again->text, answered->text);
    EXPECT_EQ(absl::StrJoin(answer.events.deltas, ""), answered->text);
    EXPECT_EQ(answer.events.started.size(), 1u);
  }
}

TEST_F(RecoveryE2eTest, TheClientSeesProgressStepBackAndNoPreviewTwice) {
  Start(NanoCluster(2));
  GenerationRequest request = Drawing(300);
  request.preview_every_steps = 10;
  EventLog events;
  std::atomic<int> steps = 0;
  events.on_progress = [&](const ProgressInfo& progress) { steps = std::max(steps.load(), progress.step); };
  auto result = std::async(std::launch::async, [&] { return client().Generate(request, &events, nullptr); });
  ASSERT_TRUE(AwaitCondition([&] { return steps >= 33; }, kClusterDeadline)) << cluster_->Logs();
  cluster_->worker(0).Signal(SIGKILL);
  ASSERT_TRUE(cluster_->AwaitHealth(Health::kNotServing).ok());
  ASSERT_TRUE(cluster_->StartWorker(0).ok());
  const auto drawn = result.get();
  ASSERT_TRUE(drawn.ok()) << drawn.status() << cluster_->Logs();
  int back = 0;
  for (size_t i = 1; i < events.progress.size(); ++i) {
    back += events.progress[i].step < events.progress[i - 1].step ? 1 : 0;
  }
  EXPECT_LE(back, 1);  // 0 if it died just behind a snapshot
  EXPECT_EQ(events.progress.back().step, 300);
  for (size_t i = 1; i < events.previews.size(); ++i) {
    EXPECT_GT(events.previews[i].step, events.previews[i - 1].step);
  }
}

TEST_F(RecoveryE2eTest, TwoDeathsEndARequestWithItsId) {
  Start(NanoCluster(2));
  EventLog events;
  std::atomic<int> steps = 0;
  events.on_progress = [&](const ProgressInfo& progress) { steps = progress.step; };
  auto result =
      std::async(std::launch::async, [&] { return client().Generate(Drawing(10000), &events, nullptr); });
  for (const int rank : {1, 0}) {
    const int before = steps;
    ASSERT_TRUE(AwaitCondition([&] { return steps >= before + 10; }, kClusterDeadline)) << cluster_->Logs();
    cluster_->worker(rank).Signal(SIGKILL);
    ASSERT_TRUE(cluster_->AwaitHealth(Health::kNotServing).ok());
    ASSERT_TRUE(cluster_->StartWorker(rank).ok());
  }
  const auto drawn = result.get();
  EXPECT_EQ(drawn.status().code(), absl::StatusCode::kInternal) << drawn.status();
  ASSERT_FALSE(events.started.empty());
  EXPECT_NE(std::string(drawn.status().message()).find(events.started[0].request_id), std::string::npos);
}

TEST_F(RecoveryE2eTest, ARollingRestartOfTwoGroupsUnderLoadLosesNothing) {
  ClusterOptions options = NanoCluster(2);
  options.groups = 2;
  Start(options);
  EventLog unwatched;
  const auto alone = client().Generate(Drawing(60), &unwatched, nullptr);
  ASSERT_TRUE(alone.ok()) << alone.status();
  std::atomic<bool> stop = false;
  std::atomic<int> done = 0;
  const auto load = [&] {
    while (!stop) {
      EventLog events;
      const auto drawn = client().Generate(Drawing(60), &events, nullptr);
      EXPECT_TRUE(drawn.ok()) << drawn.status() << cluster_->Logs();
      if (!drawn.ok()) return;
      EXPECT_EQ(drawn->image.data, alone->image.data);
      ++done;
    }
  };
  std::vector<std::thread> clients;
  for (int i = 0; i < 3; ++i) clients.emplace_back(load);
  for (int worker = 0; worker < cluster_->num_workers(); ++worker) {
    const int before = done;
    AwaitCondition([&] { return done > before + 1; }, kClusterDeadline);
    cluster_->worker(worker).Signal(SIGTERM);
    const auto end = cluster_->worker(worker).AwaitEnd(kClusterDeadline);
    ASSERT_TRUE(end.has_value()) << cluster_->Logs();
    EXPECT_EQ(end->exit_code, 0);
    ASSERT_TRUE(cluster_->StartWorker(worker).ok());
    // The next one leaves when this one is back.
    const bool serves = AwaitCondition(
        [&] {
          const auto info = client().GetModelInfo(kClusterDeadline);
          return info.ok() && info->groups.size() == 2 && info->groups[0].state == "serving" &&
                 info->groups[1].state == "serving";
        },
        kClusterDeadline);
    ASSERT_TRUE(serves) << cluster_->Logs();
  }
  stop = true;
  for (std::thread& thread : clients) thread.join();
  EXPECT_GE(done, 8);
}

TEST_F(RecoveryE2eTest, ARequestWithAKeySurvivesTheCoordinator) {
  Start(NanoCluster(2));
  EventLog unwatched;
  GenerationRequest request = Drawing(200);
  const auto alone = client().Generate(request, &unwatched, nullptr);
  ASSERT_TRUE(alone.ok()) << alone.status();
  request.idempotency_key = "e2e-1";
  RunningRequest running(client(), request);
  ASSERT_TRUE(running.AwaitSteps(20)) << cluster_->Logs();
  // The same again joins: one request on the group.
  RunningRequest joining(client(), request);
  ASSERT_TRUE(joining.AwaitSteps(20)) << cluster_->Logs();
  const auto info = client().GetModelInfo(kClusterDeadline);
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_LE(info->groups.at(0).active_requests, 1);
  cluster_->coordinator().Signal(SIGKILL);
  ASSERT_TRUE(cluster_->coordinator().AwaitEnd(kClusterDeadline).has_value());
  ASSERT_TRUE(cluster_->StartCoordinator().ok()) << cluster_->Logs();
  for (RunningRequest* call : {&running, &joining}) {
    const auto drawn = call->Result();
    ASSERT_TRUE(drawn.ok()) << drawn.status() << cluster_->Logs();
    EXPECT_EQ(drawn->image.data, alone->image.data);
  }
}

}  // namespace
}  // namespace lancet
