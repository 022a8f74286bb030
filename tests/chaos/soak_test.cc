// Mixed load of all tasks without faults, for LANCET_SOAK_MINUTES (scripts/soak.sh): nothing may grow with
// the age of the processes.
//
// Time is cut into windows. In each, clients run requests as chaos_test has them, some of which are given up
// on the way; then everything is quiet, memory and descriptors of each process are read, and the same
// requests are asked in turn of the old cluster and of one that has just been started. How much longer the
// old one takes is its ageing, and other load on the machine, which both meet alike, is not.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <future>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "tests/chaos/chaos_load.h"
#include "tests/chaos/growth.h"
#include "tests/chaos/process_use.h"
#include "tests/integration/cluster.h"
#include "tests/integration/requests.h"

namespace lancet {
namespace {

constexpr int kMinutes = 10;
constexpr int kClients = 4;
constexpr absl::Duration kWindow = absl::Seconds(45);
// What is kept of ended requests for those who join is full by then, and memory that threads ask for has been
// asked for. A third of a run at most.
constexpr absl::Duration kWarmUp = absl::Minutes(5);
// Pairs of each request that are timed in a window.
constexpr int kRounds = 3;
constexpr double kMemoryShare = 0.05;
constexpr double kMemoryMib = 2;
constexpr double kDescriptors = 1;
constexpr double kThreads = 1;
constexpr double kSlower = 0.1;  // of what a new cluster takes

double FromEnvironment(const char* name, double otherwise) {
  const char* value = getenv(name);
  double number = 0;
  return value != nullptr && absl::SimpleAtod(value, &number) && number > 0 ? number : otherwise;
}

// Two groups of two ranks that keep results for a shorter time than a window lasts.
ClusterOptions SoakCluster() {
  ClusterOptions options = NanoCluster(2);
  options.groups = 2;
  options.coordinator_flags.emplace_back("--idempotency_lifetime=20s");
  // A rank that a busy machine keeps from answering for 2 s is lost for a moment, which is nobody's fault
  // here.
  options.coordinator_flags.emplace_back("--max_losses=1000000");
  return options;
}

absl::Duration CpuOf(Cluster& cluster) {
  absl::Duration cpu = ReadProcessUse(cluster.coordinator().pid()).cpu;
  for (int w = 0; w < cluster.num_workers(); ++w) cpu += ReadProcessUse(cluster.worker(w).pid()).cpu;
  return cpu;
}

// Begins requests and gives them up after a random time, until it is destroyed.
class FickleClient {
 public:
  FickleClient(GenerationClient& client, uint64_t seed)
      : thread_([this, &client, seed] {
          std::mt19937_64 random(seed);
          while (!stop_) {
            RunningRequest request(client, MakeRequest("a cat", 200, random()));
            request.AwaitSteps(static_cast<int>(random() % 20));
            request.Cancel();
            const auto result = request.Result();
            if (!absl::IsCancelled(result.status()) && !result.ok()) status_ = result.status();
            ++given_up_;
          }
        }) {}
  ~FickleClient() { Stop(); }
  void Stop() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
  }
  // After Stop: the last error other than that of giving up.
  const absl::Status& status() const { return status_; }
  int given_up() const { return given_up_; }

 private:
  std::atomic<bool> stop_{false};
  std::atomic<int> given_up_{0};
  absl::Status status_;  // of the thread
  std::thread thread_;
};

// Wall seconds. With a key, so that a connection that a busy machine let break off is taken up again.
absl::StatusOr<double> TimeOf(GenerationClient& client, const ChaosCase& request, const std::string& key) {
  GenerationObserver nobody;
  GenerationRequest drawing = request.drawing;
  DescriptionRequest question = request.question;
  drawing.idempotency_key = key;
  question.idempotency_key = key;
  const absl::Time begin = absl::Now();
  absl::Status status;
  if (request.asks) {
    status = client.Describe(question, &nobody, nullptr).status();
  } else if (request.drawing.image.empty()) {
    status = client.Generate(drawing, &nobody, nullptr).status();
  } else {
    status = client.Edit(drawing, &nobody, nullptr).status();
  }
  if (!status.ok()) return status;
  return absl::ToDoubleSeconds(absl::Now() - begin);
}

// Everything that is measured, a value a window.
class Soak {
 public:
  explicit Soak(Cluster* aged) : aged_(aged) {
    AddProcess("coordinator");
    for (int w = 0; w < aged->num_workers(); ++w) AddProcess(absl::StrCat("rank ", w));
    wall_ = {
        .name = "time of a request, old / new", .unit = "ratio", .values = {}, .absolute_limit = kSlower};
    cpu_ = {.name = "processor time, old / new", .unit = "ratio", .values = {}, .absolute_limit = kSlower};
  }

  // Load, then what it has left behind.
  void Window(const std::vector<ChaosCase>& cases, uint64_t seed) {
    const absl::Time begin = absl::Now();
    {
      FickleClient fickle(aged_->client(), seed);
      ChaosLoad load(&aged_->client(), &cases, kClients, seed);
      absl::SleepFor(kWindow);
      load.Stop();
      fickle.Stop();
      for (const std::string& failure : load.failures()) ADD_FAILURE() << failure;
      EXPECT_TRUE(fickle.status().ok()) << fickle.status();
      EXPECT_GE(load.ended(), kClients);
      ended_ += load.ended();
      given_up_ += fickle.given_up();
    }
    const double seconds = absl::ToDoubleSeconds(absl::Now() - begin);
    Read(0, aged_->coordinator().pid());
    for (int w = 0; w < aged_->num_workers(); ++w) Read(3 * (w + 1), aged_->worker(w).pid());
    Compare(cases);
    printf(
        "window of %.0f s: coordinator %.1f MiB, %.0f descriptors; rank 0 %.1f MiB; old / new %.3f wall, "
        "%.3f cpu; "
        "%d requests\n",
        seconds, processes_[0].values.back(), processes_[1].values.back(), processes_[3].values.back(),
        wall_.values.empty() ? 0 : wall_.values.back(), cpu_.values.empty() ? 0 : cpu_.values.back(), ended_);
    fflush(stdout);
  }

  // The table, and what has grown.
  void Judge(size_t warm_up) const {
    printf("%s\n", GrowthHeader().c_str());
    for (const GrowthSeries* series : All()) {
      printf("%s\n", GrowthLine(*series, warm_up).c_str());
      EXPECT_FALSE(JudgeGrowth(*series, warm_up).grown) << series->name << " grows";
    }
    printf("%d requests ended, %d were given up on the way\n", ended_, given_up_);
  }

 private:
  void AddProcess(const std::string& name) {
    processes_.push_back({.name = name,
                          .unit = "MiB",
                          .values = {},
                          .relative_limit = kMemoryShare,
                          .absolute_limit = kMemoryMib});
    processes_.push_back({.name = name, .unit = "descriptors", .values = {}, .absolute_limit = kDescriptors});
    processes_.push_back({.name = name, .unit = "threads", .values = {}, .absolute_limit = kThreads});
  }

  void Read(size_t first, pid_t pid) {
    const ProcessUse numbers = ReadProcessUse(pid);
    EXPECT_GT(numbers.resident_kib, 0) << processes_[first].name << " is gone";
    processes_[first].values.push_back(static_cast<double>(numbers.resident_kib) / 1024);
    processes_[first + 1].values.push_back(static_cast<double>(numbers.descriptors));
    processes_[first + 2].values.push_back(static_cast<double>(numbers.threads));
  }

  // The first round warms the new cluster up and does not count.
  void Compare(const std::vector<ChaosCase>& cases) {
    auto fresh = Cluster::Start(SoakCluster());
    ASSERT_TRUE(fresh.ok()) << fresh.status();
    std::vector<double> ratios;
    absl::Duration before[2];
    for (int round = 0; round <= kRounds; ++round) {
      if (round == 1) {
        before[0] = CpuOf(*aged_);
        before[1] = CpuOf(**fresh);
      }
      for (const ChaosCase& request : cases) {
        const std::string key = absl::StrCat("compared-", ++compared_);
        auto other = std::async(std::launch::async, [&] { return TimeOf((*fresh)->client(), request, key); });
        const auto aged = TimeOf(aged_->client(), request, key);
        const auto young = other.get();
        ASSERT_TRUE(aged.ok()) << request.name << " " << aged.status() << aged_->Logs();
        ASSERT_TRUE(young.ok()) << request.name << " " << young.status() << (*fresh)->Logs();
        if (round > 0) ratios.push_back(*aged / *young);
      }
    }
    wall_.values.push_back(Median(std::move(ratios)));
    cpu_.values.push_back(absl::FDivDuration(CpuOf(*aged_) - before[0], CpuOf(**fresh) - before[1]));
  }

  std::vector<const GrowthSeries*> All() const {
    std::vector<const GrowthSeries*> all;
    for (const GrowthSeries& series : processes_) all.push_back(&series);
    all.push_back(&wall_);
    all.push_back(&cpu_);
    return all;
  }

  Cluster* const aged_;
  std::vector<GrowthSeries> processes_;  // memory, descriptors and threads of each in turn
  GrowthSeries wall_;
  GrowthSeries cpu_;
  int ended_ = 0;
  int compared_ = 0;  // requests so far
  int given_up_ = 0;
};

TEST(SoakTest, NothingGrows) {
  const absl::Duration length = absl::Minutes(FromEnvironment("LANCET_SOAK_MINUTES", kMinutes));
  const auto seed = static_cast<uint64_t>(FromEnvironment("LANCET_SOAK_SEED", 1));
  auto started = Cluster::Start(SoakCluster());
  ASSERT_TRUE(started.ok()) << started.status();
  Cluster& cluster = **started;
  std::vector<ChaosCase> cases = ChaosCases();
  const absl::Status learnt = ChaosLoad::Learn(cluster.client(), cases);
  ASSERT_TRUE(learnt.ok()) << learnt << cluster.Logs();

  const absl::Time begin = absl::Now();
  const absl::Duration warm_up_time = std::min(kWarmUp, length / 3);
  Soak soak(&cluster);
  size_t windows = 0;
  size_t warm_up = 0;
  while (absl::Now() - begin < length && !HasFailure()) {
    if (absl::Now() - begin < warm_up_time) ++warm_up;
    soak.Window(cases, seed + windows++);
  }
  soak.Judge(warm_up);
  printf("%.1f min, %zu windows, of which the first %zu do not count; seed %lu\n",
         absl::ToDoubleMinutes(absl::Now() - begin), windows, warm_up, static_cast<unsigned long>(seed));
  if (HasFailure()) printf("%s\n", cluster.Logs().c_str());
}

}  // namespace
}  // namespace lancet
