// Random faults under mixed load of all tasks, on two groups of two ranks; those of the second one are hosts
// of their own where the kernel and the user's rights allow network namespaces. LANCET_CHAOS_FAULTS and
// LANCET_CHAOS_SEED say how many and which (scripts/chaos.sh).
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "tests/chaos/chaos_faults.h"
#include "tests/chaos/chaos_load.h"
#include "tests/chaos/chaos_trace.h"
#include "tests/chaos/process_use.h"
#include "tests/integration/cluster.h"

namespace lancet {
namespace {

constexpr int kClients = 4;
constexpr int kFaults = 60;
// Between two faults; with what they take themselves some two seconds, in which work goes on.
constexpr absl::Duration kLongestPeace = absl::Milliseconds(1500);
// How long a request may hear nothing: so long for what is noticed late and done again, and for every fault
// that falls into the silence what it takes itself and the time for processes to start and form a group on a
// busy machine, as each may undo what was done since the one before.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr absl::Duration kPause = absl::Seconds(30);
constexpr absl::Duration kPauseAFault = absl::Seconds(18);
#else
constexpr absl::Duration kPause = absl::Seconds(5);
constexpr absl::Duration kPauseAFault = absl::Seconds(3);
#endif
constexpr absl::Duration kSilenceToTell = absl::Seconds(5);
// What a process may grow by between the first quarter and the end, KiB.
constexpr int64_t kGrowthKib = 64 << 10;

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* value = getenv(name);
  uint64_t number = 0;
  return value != nullptr && absl::SimpleAtoi(value, &number) ? number : otherwise;
}

// The largest coordinator and the largest rank at this moment.
std::pair<int64_t, int64_t> Memory(Cluster& cluster) {
  int64_t ranks = 0;
  for (int w = 0; w < cluster.num_workers(); ++w)
    ranks = std::max(ranks, ReadProcessUse(cluster.worker(w).pid()).resident_kib);
  return {ReadProcessUse(cluster.coordinator().pid()).resident_kib, ranks};
}

// Lines of the coordinator's log that end a request, by its id: none may end twice within one life of the
// coordinator.
int EndedTwice(const std::string& log) {
  std::map<std::string, int> ends;
  int life = 0;
  int twice = 0;
  for (const absl::string_view line : absl::StrSplit(log, '\n')) {
    if (line.find(" I listening ") != absl::string_view::npos) ++life;
    const size_t at = line.find(" request request_id=");
    if (at == absl::string_view::npos) continue;
    twice += ++ends[absl::StrCat(life, line.substr(at, 36))] > 1 ? 1 : 0;
  }
  return twice;
}

TEST(ChaosTest, EveryRequestEndsOnceWithItsBytes) {
  const auto faults = static_cast<int>(FromEnvironment("LANCET_CHAOS_FAULTS", kFaults));
  const uint64_t seed = FromEnvironment("LANCET_CHAOS_SEED", 1);
  ClusterOptions options = NanoCluster(2);
  options.groups = 2;
  options.relayed = true;
  options.last_group_on_hosts = true;
  // Faults are nobody's fault here.
  options.coordinator_flags.emplace_back("--max_losses=1000000");
  auto started = Cluster::Start(options);
  ASSERT_TRUE(started.ok()) << started.status();
  Cluster& cluster = **started;
  std::vector<ChaosCase> cases = ChaosCases();
  const absl::Status learnt = ChaosLoad::Learn(cluster.client(), cases);
  ASSERT_TRUE(learnt.ok()) << learnt << cluster.Logs();

  const absl::Time begin = absl::Now();
  ChaosLoad load(&cluster.client(), &cases, kClients, seed);
  ChaosFaults chaos(&cluster, seed);
  std::mt19937_64 random(seed);
  std::pair<int64_t, int64_t> early{0, 0};
  std::vector<ChaosEvent> events;
  for (int i = 0; i < faults && load.failures().empty(); ++i) {
    absl::SleepFor(kLongestPeace * std::uniform_real_distribution<double>(0, 1)(random));
    const absl::Time fault = absl::Now();
    const absl::Status status = chaos.Next();
    ASSERT_TRUE(status.ok()) << status << cluster.Logs();
    events.push_back({fault, absl::Now(), chaos.last()});
    printf("%6.1f to %6.1f s: %s\n", absl::ToDoubleSeconds(fault - begin),
           absl::ToDoubleSeconds(absl::Now() - begin), chaos.last().c_str());
    if (i >= faults / 4) continue;
    const auto now = Memory(cluster);
    early = {std::max(early.first, now.first), std::max(early.second, now.second)};
  }
  const absl::Status serving = cluster.AwaitHealth(Health::kServing);
  EXPECT_TRUE(serving.ok()) << serving;
  load.Stop();
  const auto late = Memory(cluster);

  for (const std::string& failure : load.failures()) ADD_FAILURE() << failure;
  EXPECT_EQ(EndedTwice(cluster.coordinator().Log()), 0);
  EXPECT_GE(load.ended(), kClients);
  const std::vector<ChaosLoad::Silence> silences = load.silences();
  for (const ChaosLoad::Silence& silence : silences) {
    const absl::Time since = silence.end - silence.length;
    int within = 0;
    absl::Duration allowed = kPause;
    for (const ChaosEvent& event : events) {
      if (event.end < since || event.begin > silence.end) continue;
      ++within;
      allowed += kPauseAFault + (event.end - event.begin);
    }
    EXPECT_LE(silence.length, allowed) << silence.name;
    if (silence.length < kSilenceToTell) continue;
    printf("nothing heard for %.1f s until %.1f s, with %d faults: %s\n",
           absl::ToDoubleSeconds(silence.length), absl::ToDoubleSeconds(silence.end - begin), within,
           silence.name.c_str());
  }
  const ChaosLoad::Silence& longest = silences.back();
  printf("what the longest silence was made of, from the last that %s heard on:\n", longest.name.c_str());
  for (const std::string& line : PhasesOfSilence(cluster.coordinator().Log(), events, longest.trace_id,
                                                 longest.end - longest.length, longest.end)) {
    printf("  %s\n", line.c_str());
  }
  EXPECT_LE(late.first, early.first + kGrowthKib);
  EXPECT_LE(late.second, early.second + kGrowthKib);
  if (HasFailure()) printf("%s\n", cluster.Logs().c_str());

  printf("seed %lu: %d faults in %.0f s, the second group %s (", static_cast<unsigned long>(seed), faults,
         absl::ToDoubleSeconds(absl::Now() - begin),
         cluster.hosts() ? "on hosts of their own" : "behind relays");
  const char* separator = "";
  for (const auto& [name, count] : chaos.counts()) {
    printf("%s%s %d", separator, name.c_str(), count);
    separator = ", ";
  }
  printf(
      "); %d requests ended, %zu wrong; longest silence of a request: median %.1f s, 90 %% %.1f s, most %.1f "
      "s; "
      "resident MiB early and late: coordinator %ld and %ld, rank %ld and %ld\n",
      load.ended(), load.failures().size(), absl::ToDoubleSeconds(silences[silences.size() / 2].length),
      absl::ToDoubleSeconds(silences[silences.size() * 9 / 10].length),
      absl::ToDoubleSeconds(silences.back().length), early.first >> 10, late.first >> 10, early.second >> 10,
      late.second >> 10);
}

}  // namespace
}  // namespace lancet
