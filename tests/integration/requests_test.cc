// Life and death of requests on a healthy server: order of events, sharing, cancelling, deadlines, formats.
#include "tests/integration/requests.h"

#include <algorithm>
#include <iterator>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/await_condition.h"
#include "tests/integration/cluster.h"

namespace lancet {
namespace {

// On the nano model a step takes milliseconds; this many take longer than any test waits.
constexpr int kEndlessSteps = 10000;

class RequestsTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    ClusterOptions options = NanoCluster(2);
    options.coordinator_flags.insert(options.coordinator_flags.end(), {"--max_active=2", "--max_queue=2"});
    auto cluster = Cluster::Start(std::move(options));
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    shared_cluster = cluster->release();
  }
  static void TearDownTestSuite() {
    delete shared_cluster;
    shared_cluster = nullptr;
  }
  void SetUp() override { ASSERT_NE(shared_cluster, nullptr); }

  static GenerationRequest Request(int steps, uint64_t seed = 42) {
    GenerationRequest request = MakeRequest("a cat", steps, seed);
    request.size = {64, 64};
    return request;
  }
  static GenerationClient& client() { return shared_cluster->client(); }

  // The server is as it was: a small request is served.
  static void ExpectServes() {
    EventLog events;
    const auto result = client().Generate(Request(2), &events, nullptr);
    EXPECT_TRUE(result.ok()) << result.status() << shared_cluster->Logs();
  }

  static Cluster* shared_cluster;
};

Cluster* RequestsTest::shared_cluster = nullptr;

TEST_F(RequestsTest, EventsComeInOrder) {
  GenerationRequest request = Request(6);
  request.preview_every_steps = 3;
  EventLog events;
  const auto result = client().Generate(request, &events, nullptr);
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(events.started.size(), 1u);
  EXPECT_EQ(events.started[0].seed, 42u);
  EXPECT_EQ(events.started[0].width, 64);
  EXPECT_EQ(events.started[0].num_steps, 6);
  EXPECT_FALSE(events.started[0].request_id.empty());
  bool started = false;
  for (const std::string& name : events.names) {
    if (name == "started") started = true;
    EXPECT_EQ(name == "queued", !started && name != "started") << name;
  }
  for (size_t i = 1; i < events.progress.size(); ++i) {
    EXPECT_GT(events.progress[i].step, events.progress[i - 1].step);
    EXPECT_GE(events.progress[i].elapsed, events.progress[i - 1].elapsed);
  }
  ASSERT_FALSE(events.progress.empty());
  EXPECT_EQ(events.progress.back().step, 6);
  EXPECT_GT(result->timings.total, absl::ZeroDuration());
  EXPECT_GT(result->timings.denoise, absl::ZeroDuration());
  EXPECT_LE(result->timings.denoise, result->timings.total);
  const auto info = client().GetModelInfo(kClusterDeadline);
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(result->model_fingerprint, info->fingerprint);
  ASSERT_EQ(info->groups.size(), 1u);
  EXPECT_EQ(info->groups[0].state, "serving");
  EXPECT_EQ(info->groups[0].world_size, 2);
}

TEST_F(RequestsTest, TwoClientsAdvanceInTurn) {
  RunningRequest one(client(), Request(kEndlessSteps));
  RunningRequest two(client(), Request(kEndlessSteps, 43));
  // Neither waits for the other to end, which neither does.
  EXPECT_TRUE(one.AwaitSteps(5)) << shared_cluster->Logs();
  EXPECT_TRUE(two.AwaitSteps(5)) << shared_cluster->Logs();
  EXPECT_FALSE(one.Ended());
}

TEST_F(RequestsTest, CompanyDoesNotChangeTheBytes) {
  EventLog events;
  const auto alone = client().Generate(Request(20), &events, nullptr);
  ASSERT_TRUE(alone.ok()) << alone.status();
  RunningRequest other(client(), Request(kEndlessSteps, 43));
  ASSERT_TRUE(other.AwaitSteps(1));
  const auto together = client().Generate(Request(20), &events, nullptr);
  ASSERT_TRUE(together.ok()) << together.status();
  EXPECT_EQ(together->image.data, alone->image.data);
}

TEST_F(RequestsTest, CancelMakesRoomForWhoWaits) {
  RunningRequest one(client(), Request(kEndlessSteps));
  RunningRequest two(client(), Request(kEndlessSteps, 43));
  ASSERT_TRUE(one.AwaitSteps(1) && two.AwaitSteps(1));
  // --max_active=2: the third is queued until one of them leaves.
  RunningRequest third(client(), Request(2));
  two.Cancel();
  const auto cancelled = two.Result();
  EXPECT_EQ(cancelled.status().code(), absl::StatusCode::kCancelled) << cancelled.status();
  const auto result = third.Result();
  EXPECT_TRUE(result.ok()) << result.status() << shared_cluster->Logs();
  EXPECT_FALSE(one.Ended());
}

TEST_F(RequestsTest, DeadlineEndsARequestAndFreesItsPlace) {
  GenerationRequest request = Request(kEndlessSteps);
  request.timeout = absl::Milliseconds(500);
  EventLog events;
  const auto result = client().Generate(request, &events, nullptr);
  EXPECT_EQ(result.status().code(), absl::StatusCode::kDeadlineExceeded) << result.status();
  ExpectServes();
}

TEST_F(RequestsTest, FullQueueIsRefusedAtOnce) {
  RunningRequest one(client(), Request(kEndlessSteps));
  RunningRequest two(client(), Request(kEndlessSteps, 43));
  ASSERT_TRUE(one.AwaitSteps(1) && two.AwaitSteps(1));
  RunningRequest three(client(), Request(kEndlessSteps, 44));
  RunningRequest four(client(), Request(kEndlessSteps, 45));
  // Whichever comes last finds --max_queue=2 places taken.
  RunningRequest five(client(), Request(kEndlessSteps, 46));
  RunningRequest* const late[] = {&three, &four, &five};
  RunningRequest* refused = nullptr;
  AwaitCondition(
      [&] {
        const auto ended =
            std::find_if(std::begin(late), std::end(late), [](auto* request) { return request->Ended(); });
        if (ended != std::end(late)) refused = *ended;
        return refused != nullptr;
      },
      kClusterDeadline);
  ASSERT_NE(refused, nullptr) << "three requests wait where two may";
  const auto result = refused->Result();
  EXPECT_EQ(result.status().code(), absl::StatusCode::kResourceExhausted) << result.status();
}

TEST_F(RequestsTest, BadRequestIsNamedAndHarmless) {
  GenerationRequest request = Request(2);
  request.size = {15, 64};
  EventLog events;
  const auto result = client().Generate(request, &events, nullptr);
  EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(result.status().message()), testing::HasSubstr("width"));
  ExpectServes();
}

TEST_F(RequestsTest, FormatsAreWhatTheySay) {
  const std::pair<PictureFormat, std::string> table[] = {{PictureFormat::kPng, "\x89PNG"},
                                                         {PictureFormat::kJpeg, "\xff\xd8\xff"},
                                                         {PictureFormat::kWebp, "RIFF"}};
  for (const auto& [format, magic] : table) {
    GenerationRequest request = Request(2);
    request.output_format = format;
    EventLog events;
    const auto result = client().Generate(request, &events, nullptr);
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->image.format, format);
    EXPECT_TRUE(absl::StartsWith(result->image.data, magic));
  }
}

TEST_F(RequestsTest, UnsetSeedIsDrawnAndReported) {
  GenerationRequest request = Request(2);
  request.seed.reset();
  std::set<uint64_t> seeds;
  for (int i = 0; i < 2; ++i) {
    EventLog events;
    const auto result = client().Generate(request, &events, nullptr);
    ASSERT_TRUE(result.ok()) << result.status();
    ASSERT_EQ(events.started.size(), 1u);
    EXPECT_EQ(result->seed, events.started[0].seed);
    seeds.insert(result->seed);
  }
  EXPECT_EQ(seeds.size(), 2u);
}

}  // namespace
}  // namespace lancet
