// A rank whose compute thread is stuck while the rest of its process lives and answers pings.
#include <sys/ptrace.h>
#include <sys/wait.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/integration/await_condition.h"
#include "tests/integration/cluster.h"
#include "tests/integration/requests.h"

namespace lancet {
namespace {

// The thread of the process that has computed most; 0 if there is none.
pid_t BusiestThread(pid_t pid) {
  pid_t busiest = 0;
  uint64_t most = 0;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(absl::StrCat("/proc/", pid, "/task"), error)) {
    // "CPU time, time it waited for a processor, slices", nanoseconds.
    uint64_t ran = 0;
    std::ifstream(entry.path() / "schedstat") >> ran;
    pid_t thread = 0;
    if (ran <= most || !absl::SimpleAtoi(entry.path().filename().string(), &thread)) continue;
    most = ran;
    busiest = thread;
  }
  return busiest;
}

// Stops one thread of a process of ours, which no signal can. Of the thread that made it.
class StuckThread {
 public:
  explicit StuckThread(pid_t thread) : thread_(thread) {
    attached_ = ptrace(PTRACE_SEIZE, thread, nullptr, nullptr) == 0;
    if (!attached_) return;
    ptrace(PTRACE_INTERRUPT, thread, nullptr, nullptr);
    int status = 0;
    stopped_ = waitpid(thread, &status, __WALL) == thread && WIFSTOPPED(status);
  }
  ~StuckThread() {
    if (attached_ && !ended_) ptrace(PTRACE_DETACH, thread_, nullptr, nullptr);
  }
  bool stopped() const { return stopped_; }
  // Whether it has ended, with its process. That can only end once this has seen it.
  bool Ended() {
    int status = 0;
    if (!ended_ && waitpid(thread_, &status, __WALL | WNOHANG) == thread_) {
      ended_ = WIFEXITED(status) || WIFSIGNALED(status);
    }
    return ended_;
  }

 private:
  const pid_t thread_;
  bool attached_ = false;
  bool stopped_ = false;
  bool ended_ = false;
};

TEST(HangTest, AStuckComputeThreadIsFoundAndItsRequestGoesOnWhenTheProcessIsReplaced) {
  ClusterOptions options = NanoCluster(2);
  options.coordinator_flags.emplace_back("--hang_timeout=2s");
  options.worker_flags.emplace_back("--stuck_timeout=1s");
  auto started = Cluster::Start(std::move(options));
  ASSERT_TRUE(started.ok()) << started.status();
  Cluster& cluster = **started;
  GenerationRequest request = MakeRequest("a cat", 200);
  request.size = {64, 64};
  EventLog unwatched;
  const auto undisturbed = cluster.client().Generate(request, &unwatched, nullptr);
  ASSERT_TRUE(undisturbed.ok()) << undisturbed.status();

  RunningRequest running(cluster.client(), request);
  ASSERT_TRUE(running.AwaitSteps(20)) << cluster.Logs();
  Process& rank = cluster.worker(1);
  StuckThread stuck(BusiestThread(rank.pid()));
  if (!stuck.stopped()) GTEST_SKIP() << "may not stop a thread of another process here";
  const absl::Status lost = cluster.AwaitHealth(Health::kNotServing);
  ASSERT_TRUE(lost.ok()) << lost;
  // The process finds out itself and gives way.
  ASSERT_TRUE(AwaitCondition([&] { return stuck.Ended(); }, kClusterDeadline)) << rank.Log();
  const std::optional<ProcessEnd> end = rank.AwaitEnd(kClusterDeadline);
  ASSERT_TRUE(end.has_value());
  EXPECT_EQ(end->exit_code, 1) << rank.Log();
  EXPECT_NE(rank.Log().find("the compute thread did not come back"), std::string::npos) << rank.Log();
  EXPECT_NE(cluster.coordinator().Log().find("did not finish command"), std::string::npos) << cluster.Logs();

  ASSERT_TRUE(cluster.StartWorker(1).ok());
  const auto drawn = running.Result();
  ASSERT_TRUE(drawn.ok()) << drawn.status() << cluster.Logs();
  EXPECT_EQ(drawn->image.data, undisturbed->image.data);
}

}  // namespace
}  // namespace lancet
