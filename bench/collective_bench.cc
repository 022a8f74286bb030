// Time per collective call between two and four ranks of one host, over shared memory and over TCP on the
// loopback interface, by size of the tensor.
//
// One rank is this thread, which the benchmark library times; the others are threads of this process, which
// take the same path as processes do. Medians:
//   collective_bench --benchmark_repetitions=9 --benchmark_report_aggregates_only=true
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "bench/collective_group.h"
#include "worker/collective/collective.h"

namespace lancet {
namespace {

using Group = CollectiveGroup;

absl::Time Deadline() { return absl::Now() + absl::Minutes(1); }

absl::Status SumInPlace(Collective& collective, size_t count) {
  absl::StatusOr<absl::Span<float>> partial = collective.PartialSumBuffer(count);
  if (!partial.ok()) {
    return partial.status();
  }
  return collective.AllReduceSum(*partial, Deadline()).status();
}

absl::Status SumFromElsewhere(Collective& collective, std::vector<float>& elsewhere) {
  absl::StatusOr<absl::Span<const float>> sum = collective.AllReduceSum(elsewhere, Deadline());
  if (sum.ok()) {
    std::copy(sum->begin(), sum->end(), elsewhere.begin());
  }
  return sum.status();
}

// Runs `call` on every rank, on rank 0 as often as the library asks for. The peers make the same calls until
// rank 0 aborts the one they wait in.
template <typename Call>
void RunOnAllRanks(benchmark::State& state, absl::StatusOr<Group> group, const Call& call) {
  if (!group.ok()) {
    state.SkipWithError(group.status().ToString().c_str());
    return;
  }
  std::vector<std::thread> peers;
  for (size_t rank = 1; rank < group->size(); ++rank) {
    peers.emplace_back([&call, &collective = *(*group)[rank]] {
      while (call(collective).ok()) {
      }
    });
  }
  for (auto _ : state) {
    const absl::Status status = call(*group->front());
    if (!status.ok()) {
      state.SkipWithError(status.ToString().c_str());
      break;
    }
  }
  group->front()->Abort(absl::CancelledError("done"));
  for (std::thread& peer : peers) {
    peer.join();
  }
}

void BM_AllReduceInSegment(benchmark::State& state) {
  const size_t count = static_cast<size_t>(state.range(1)) / sizeof(float);
  RunOnAllRanks(state, MakeShmGroup(static_cast<int>(state.range(0)), count),
                [count](Collective& collective) { return SumInPlace(collective, count); });
  state.SetBytesProcessed(state.iterations() * state.range(1));
}

void BM_AllReduceCopied(benchmark::State& state) {
  const size_t count = static_cast<size_t>(state.range(1)) / sizeof(float);
  std::vector<std::vector<float>> memory(static_cast<size_t>(state.range(0)), std::vector<float>(count));
  RunOnAllRanks(
      state, MakeShmGroup(static_cast<int>(state.range(0)), count),
      [&memory](Collective& collective) { return SumFromElsewhere(collective, memory[collective.rank()]); });
  state.SetBytesProcessed(state.iterations() * state.range(1));
}

void BM_AllReduceTcp(benchmark::State& state) {
  const size_t count = static_cast<size_t>(state.range(1)) / sizeof(float);
  RunOnAllRanks(state, MakeTcpGroup(static_cast<int>(state.range(0)), count),
                [count](Collective& collective) { return SumInPlace(collective, count); });
  state.SetBytesProcessed(state.iterations() * state.range(1));
}

void BM_Barrier(benchmark::State& state) {
  RunOnAllRanks(state, MakeShmGroup(static_cast<int>(state.range(0)), 0),
                [](Collective& collective) { return collective.Barrier(Deadline()); });
}

// Ranks, then bytes of the tensor; 9.4 MB is one row block of 1152 latents at width 2048.
const std::vector<std::vector<int64_t>> kRanksAndBytes = {{2, 4}, {4096, 65536, 1 << 20, 1152 * 2048 * 4}};

BENCHMARK(BM_AllReduceInSegment)->ArgsProduct(kRanksAndBytes)->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK(BM_AllReduceCopied)->ArgsProduct(kRanksAndBytes)->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK(BM_AllReduceTcp)->ArgsProduct(kRanksAndBytes)->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK(BM_Barrier)->Arg(2)->Arg(4)->UseRealTime()->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace lancet

BENCHMARK_MAIN();
