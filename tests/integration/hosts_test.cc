// Ranks that believe to be on several hosts: other addresses of the loopback interface, no shared memory.
#include <signal.h>

#include <string>
#include <utility>

#include "gtest/gtest.h"
#include "tests/integration/cluster.h"
#include "tests/integration/requests.h"

namespace lancet {
namespace {

GenerationRequest Request() {
  GenerationRequest request = MakeRequest("a cat", 3);
  request.size = {64, 64};
  return request;
}

std::string Draw(Cluster& cluster) {
  EventLog events;
  const auto result = cluster.client().Generate(Request(), &events, nullptr);
  EXPECT_TRUE(result.ok()) << result.status() << cluster.Logs();
  return result.ok() ? result->image.data : "";
}

TEST(HostsTest, RanksOfSeveralHostsGiveTheSameBytesAndSurviveALoss) {
  std::string shared_memory;
  {
    auto cluster = Cluster::Start(NanoCluster(2));
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    shared_memory = Draw(**cluster);
    ASSERT_FALSE(shared_memory.empty());
  }
  ClusterOptions options = NanoCluster(2);
  options.worker_flags.push_back("--host_name=host-{rank}");
  options.worker_flags.push_back("--collective_listen=127.0.1.{rank}:0");
  auto cluster = Cluster::Start(std::move(options));
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  EXPECT_EQ(Draw(**cluster), shared_memory);

  (*cluster)->worker(1).Signal(SIGKILL);
  ASSERT_TRUE((*cluster)->AwaitHealth(Health::kNotServing).ok());
  ASSERT_TRUE((*cluster)->StartWorker(1).ok());
  const absl::Status serving = (*cluster)->AwaitHealth(Health::kServing);
  ASSERT_TRUE(serving.ok()) << serving;
  EXPECT_EQ(Draw(**cluster), shared_memory);
}

TEST(HostsTest, RanksInNamespacesOfTheirOwnSurviveALinkThatGoesDown) {
  ClusterOptions options = NanoCluster(2);
  options.last_group_on_hosts = true;
  auto cluster = Cluster::Start(std::move(options));
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  if (!(*cluster)->hosts()) GTEST_SKIP() << "no network namespaces here";
  const std::string undisturbed = Draw(**cluster);
  ASSERT_FALSE(undisturbed.empty());
  // With a request under way, which waits for the rank and goes on.
  GenerationRequest request = Request();
  request.num_steps = 300;
  RunningRequest running((*cluster)->client(), request);
  ASSERT_TRUE(running.AwaitSteps(5));
  ASSERT_TRUE((*cluster)->SetLink(1, /*up=*/false).ok());
  ASSERT_TRUE((*cluster)->AwaitHealth(Health::kNotServing).ok());
  ASSERT_TRUE((*cluster)->SetLink(1, /*up=*/true).ok());
  const absl::Status serving = (*cluster)->AwaitHealth(Health::kServing);
  ASSERT_TRUE(serving.ok()) << serving;
  const auto result = running.Result();
  EXPECT_TRUE(result.ok()) << result.status() << (*cluster)->Logs();
  EXPECT_EQ(Draw(**cluster), undisturbed);
}

}  // namespace
}  // namespace lancet
