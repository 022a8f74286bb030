// How the trunk's time grows with rows and steps, and falls with ranks: layers of the release's size with
// random weights. Ratios of times taken in turn in this process.

#include <sched.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <iostream>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "bench/limits.h"
#include "bench/trunk_case.h"
#include "common/status_macros.h"
#include "common/thread_pool.h"
#include "worker/collective/local_collective.h"
#include "worker/collective/shm_collective.h"
#include "worker/loader/linear_policy.h"

ABSL_FLAG(int, threads, 1, "compute threads for rows and steps, 1 to 1024");
ABSL_FLAG(int, layers, 1, "layers of the trunk, 1 to 36");
ABSL_FLAG(int, repetitions, 3, "passes to take the least of");
ABSL_FLAG(std::string, clock, "wall", "wall, or cpu: the calling thread's processor time (not for ranks)");
ABSL_FLAG(std::vector<std::string>, rows,
          std::vector<std::string>({"256", "512", "1024", "2048", "4096", "8192"}),
          "rows of a pass, multiples of 256 up to 8192; empty for none");
ABSL_FLAG(std::string, mode, "w4a16", "of the Linears: w4a16 or w4a8_int8");
ABSL_FLAG(bool, ranks, true, "also two ranks of one thread beside one rank of one thread and of two");

namespace lancet {
namespace {

constexpr int64_t kBlockRows = 256;
constexpr int64_t kMaxRows = 8192;
constexpr int64_t kRankRows = 516;  // the guided pair of a 256 x 256 picture

absl::StatusOr<std::unique_ptr<KernelContext>> MakeContext(int threads) {
  CpuOptions cpu;
  cpu.threads = threads;
  return KernelContext::CreateCpu(cpu);
}

// Rows of gen experts in blocks that do not see each other, `block_rows` each.
struct BlockPass {
  BlockPass(const TrunkCase& trunk, int64_t rows, int64_t block_rows) {
    for (int64_t begin = 0; begin < rows; begin += block_rows) {
      caches.push_back(trunk.MakeCache(0, 0));
      pass.AddBlock(caches.back().get(), /*append=*/false, /*causal=*/false);
      for (int64_t i = 0; i < block_rows; ++i) pass.AddRow(/*gen=*/true, /*wide=*/true, 1, 1, 1);
    }
    pass.Finish();
  }
  std::vector<std::unique_ptr<KvCache>> caches;
  Pass pass;
};

absl::StatusOr<std::vector<int64_t>> RowsFromFlag() {
  std::vector<int64_t> all;
  for (const std::string& text : absl::GetFlag(FLAGS_rows)) {
    int64_t rows = 0;
    if (!absl::SimpleAtoi(text, &rows) || rows < kBlockRows || rows > kMaxRows || rows % kBlockRows != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("--rows: ", text, " is not a multiple of ", kBlockRows, " up to ", kMaxRows));
    }
    all.push_back(rows);
  }
  std::sort(all.begin(), all.end());
  return all;
}

// Rows of many small sequences, and of one picture, whose attention grows with the square.
absl::Status BenchRows(const std::vector<int64_t>& all_rows, BenchClock clock, const LinearPolicy& policy) {
  if (all_rows.empty()) return absl::OkStatus();
  LANCET_ASSIGN_OR_RETURN(const auto ctx, MakeContext(absl::GetFlag(FLAGS_threads)));
  ctx->BindCallingThread();
  const MachineLimits limits = MeasureLimits(*ctx, absl::GetFlag(FLAGS_threads));
  std::cout << absl::StrFormat("%s; this machine now: %.0f GFLOP/s, %.1f GB/s\n", ctx->description(),
                               limits.flops * 1e-9, limits.read_bytes * 1e-9);
  const int layers = absl::GetFlag(FLAGS_layers);
  LANCET_ASSIGN_OR_RETURN(const auto trunk, TrunkCase::Create(*ctx, layers, all_rows.back(), 0, 1, policy));
  LANCET_ASSIGN_OR_RETURN(
      const auto collective,
      SingleRankCollective::Create(static_cast<size_t>(trunk->transformer().reduce_capacity())));
  const int repetitions = absl::GetFlag(FLAGS_repetitions);
  double first = 0;
  for (const int64_t rows : all_rows) {
    const BlockPass blocks(*trunk, rows, kBlockRows);
    const BlockPass one(*trunk, rows, rows);
    LANCET_ASSIGN_OR_RETURN(const double linear, LeastSeconds(clock, repetitions, [&] {
                              return trunk->Run(blocks.pass, *collective);
                            }));
    LANCET_ASSIGN_OR_RETURN(const double whole, LeastSeconds(clock, repetitions, [&] {
                              return trunk->Run(one.pass, *collective);
                            }));
    const double per_row = linear / static_cast<double>(rows * layers);
    if (first == 0) first = per_row;
    const double macs = TrunkCase::LayerMacs() + TrunkCase::AttentionMacs(kBlockRows);
    std::cout << absl::StrFormat(
        "%5d rows: %7.1f us a row and layer in blocks of %d (%.2f of the first, %3.0f %% of the peak); as "
        "one "
        "picture %.1f ms a layer, of which seeing all rows %.1f\n",
        rows, per_row * 1e6, kBlockRows, per_row / first, Share(2 * macs / per_row, limits.flops),
        whole / layers * 1e3, (whole - linear) / layers * 1e3);
  }
  const BlockPass step(*trunk, all_rows.front(), all_rows.front());
  LANCET_ASSIGN_OR_RETURN(const double once, LeastSeconds(clock, repetitions, [&] {
                            return trunk->Run(step.pass, *collective);
                          }));
  constexpr int kSteps = 8;
  const auto all_steps = [&] {
    for (int i = 0; i < kSteps; ++i) LANCET_RETURN_IF_ERROR(trunk->Run(step.pass, *collective));
    return absl::OkStatus();
  };
  LANCET_ASSIGN_OR_RETURN(const double eight, LeastSeconds(clock, 1, all_steps));
  std::cout << absl::StrFormat("%d steps of %d rows: %.2f times one step\n", kSteps, all_rows.front(),
                               eight / once);
  return absl::OkStatus();
}

// Processors of this process, ascending.
std::vector<int> Cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cpus;
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  }
  return cpus;
}

// Runs `count` ranks as threads, each on a processor of its own; the first error.
absl::Status OnRanks(int count, const std::vector<int>& cpus, const std::function<absl::Status(int)>& body) {
  std::vector<absl::Status> statuses(static_cast<size_t>(count));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < count; ++rank) {
    threads.emplace_back([&, rank] {
      // Where that fails the comparison is only noisier.
      if (rank < static_cast<int>(cpus.size())) PinThreadTo(cpus[rank]);
      statuses[rank] = body(rank);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (absl::Status& status : statuses) LANCET_RETURN_IF_ERROR(status);
  return absl::OkStatus();
}

absl::Status BenchRanks(const LinearPolicy& policy) {
  const std::vector<int> cpus = Cpus();
  if (cpus.size() < 2) {
    std::cout << "two ranks: this process may use one processor only\n";
    return absl::OkStatus();
  }
  const int layers = absl::GetFlag(FLAGS_layers);
  LANCET_ASSIGN_OR_RETURN(const auto one_thread, MakeContext(1));
  LANCET_ASSIGN_OR_RETURN(const auto two_threads, MakeContext(2));
  LANCET_ASSIGN_OR_RETURN(const auto lone, TrunkCase::Create(*one_thread, layers, 1024, 0, 1, policy));
  LANCET_ASSIGN_OR_RETURN(const auto wide, TrunkCase::Create(*two_threads, layers, 1024, 0, 1, policy));
  const size_t capacity = static_cast<size_t>(lone->transformer().reduce_capacity());
  LANCET_ASSIGN_OR_RETURN(const auto alone, SingleRankCollective::Create(capacity));
  LANCET_ASSIGN_OR_RETURN(const auto group, ShmCollective::CreateGroupInProcess(2, capacity));
  std::unique_ptr<KernelContext> contexts[2];
  std::unique_ptr<TrunkCase> ranks[2];
  for (int rank = 0; rank < 2; ++rank) {
    LANCET_ASSIGN_OR_RETURN(contexts[rank], MakeContext(1));
    LANCET_ASSIGN_OR_RETURN(ranks[rank], TrunkCase::Create(*contexts[rank], layers, 1024, rank, 2, policy));
  }
  double least[3] = {};
  double sums = std::numeric_limits<double>::infinity();
  std::fill_n(least, 3, std::numeric_limits<double>::infinity());
  for (int repetition = 0; repetition <= absl::GetFlag(FLAGS_repetitions); ++repetition) {
    for (int way = 0; way < 3; ++way) {
      const double begin = BenchSeconds(BenchClock::kWall);
      LANCET_RETURN_IF_ERROR(OnRanks(way == 2 ? 2 : 1, way == 1 ? std::vector<int>() : cpus, [&](int rank) {
        TrunkCase& trunk = way == 0 ? *lone : way == 1 ? *wide : *ranks[rank];
        const BlockPass pair(trunk, kRankRows, kRankRows / 2);
        Collective& collective = way == 2 ? static_cast<Collective&>(*group[rank]) : *alone;
        return trunk.Run(pair.pass, collective);
      }));
      if (repetition > 0) least[way] = std::min(least[way], BenchSeconds(BenchClock::kWall) - begin);
    }
    const size_t values = static_cast<size_t>(kRankRows) * capacity / kRowChunk;
    const double begin = BenchSeconds(BenchClock::kWall);
    const absl::Status summed = OnRanks(2, cpus, [&](int rank) {
      for (int i = 0; i < 2 * layers; ++i) {
        LANCET_ASSIGN_OR_RETURN(const absl::Span<float> partial, group[rank]->PartialSumBuffer(values));
        LANCET_RETURN_IF_ERROR(group[rank]->AllReduceSum(partial, absl::Now() + absl::Minutes(1)).status());
      }
      return absl::OkStatus();
    });
    LANCET_RETURN_IF_ERROR(summed);
    if (repetition > 0) sums = std::min(sums, BenchSeconds(BenchClock::kWall) - begin);
  }
  std::cout << absl::StrFormat(
      "%d rows, %d layer(s): one rank of one thread %.1f ms, of two threads %.1f ms, two ranks of one thread "
      "%.1f ms: %.2f and %.2f times as fast; their sums alone %.2f ms, %.2f %%\n",
      kRankRows, layers, least[0] * 1e3, least[1] * 1e3, least[2] * 1e3, least[0] / least[2],
      least[1] / least[2], sums * 1e3, 100 * sums / least[2]);
  return absl::OkStatus();
}

absl::Status Run() {
  const int threads = absl::GetFlag(FLAGS_threads);
  const int layers = absl::GetFlag(FLAGS_layers);
  if (threads < 1 || threads > 1024 || layers < 1 || layers > kReleaseLayers ||
      absl::GetFlag(FLAGS_repetitions) < 1) {
    return absl::InvalidArgumentError("--threads is 1 to 1024, --layers 1 to 36, --repetitions 1 or more");
  }
  LANCET_ASSIGN_OR_RETURN(const BenchClock clock, ParseBenchClock(absl::GetFlag(FLAGS_clock)));
  LANCET_ASSIGN_OR_RETURN(const std::vector<int64_t> rows, RowsFromFlag());
  LANCET_ASSIGN_OR_RETURN(const LinearMode mode,
                          ParseLinearMode(absl::GetFlag(FLAGS_mode), /*on_cuda=*/false));
  if (mode != LinearMode::kW4A16 && mode != LinearMode::kW4A8Int8) {
    return absl::InvalidArgumentError("--mode is w4a16 or w4a8_int8");
  }
  const LinearPolicy policy = LinearPolicy::Uniform(mode, HeadForm::kBf16, /*e4m3_scales=*/false);
  LANCET_RETURN_IF_ERROR(BenchRows(rows, clock, policy));
  return absl::GetFlag(FLAGS_ranks) ? BenchRanks(policy) : absl::OkStatus();
}

}  // namespace
}  // namespace lancet

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage(
      "scaling_bench [--threads N] [--layers N] [--rows 256,1024,...] [--ranks]: time over rows, steps and "
      "ranks");
  absl::ParseCommandLine(argc, argv);
  if (const absl::Status status = lancet::Run(); !status.ok()) {
    std::cerr << "scaling_bench: " << status << "\n";
    return 1;
  }
  return 0;
}
