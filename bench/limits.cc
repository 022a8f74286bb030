#include "bench/limits.h"

#include <malloc.h>
#include <time.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <numeric>
#include <thread>

#include "absl/strings/str_cat.h"
#include "bench/peak.h"
#include "common/status_macros.h"

namespace lancet {
namespace {

#if defined(__x86_64__)
// Far beyond the caches of the machines that these programs are for.
constexpr int64_t kReadBytes = int64_t{256} << 20;

double SumOverThreads(int threads, absl::FunctionRef<double()> measure) {
  std::vector<double> results(static_cast<size_t>(threads));
  std::vector<std::thread> team;
  for (int t = 0; t < threads; ++t) team.emplace_back([&results, measure, t] { results[t] = measure(); });
  for (std::thread& thread : team) thread.join();
  return std::accumulate(results.begin(), results.end(), 0.0);
}
#endif

}  // namespace

MachineLimits MeasureLimits(const KernelContext& ctx, int threads) {
  MachineLimits limits;
#if defined(__x86_64__)
  limits.flops = SumOverThreads(threads, [&] { return MeasurePeakFlops(ctx.product_isa()); });
  limits.int8_blocks = SumOverThreads(threads, [&] { return MeasureBlockInt8(ctx.isa(), ctx.has_vnni()); });
  limits.read_bytes = SumOverThreads(threads, [&] { return MeasureReadBandwidth(kReadBytes / threads); });
#else  // peak.h has loops of x86 instructions only
  static_cast<void>(ctx);
  static_cast<void>(threads);
#endif
  return limits;
}

double Share(double reached, double limit) { return limit > 0 ? 100 * reached / limit : 0.0; }

absl::StatusOr<BenchClock> ParseBenchClock(const std::string& name) {
  if (name == "wall") return BenchClock::kWall;
  if (name == "cpu") return BenchClock::kThreadCpu;
  return absl::InvalidArgumentError(absl::StrCat("--clock is ", name, "; expected wall or cpu"));
}

double BenchSeconds(BenchClock clock) {
  timespec now = {};
  clock_gettime(clock == BenchClock::kWall ? CLOCK_MONOTONIC : CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

absl::StatusOr<double> LeastSeconds(BenchClock clock, int repetitions,
                                    absl::FunctionRef<absl::Status()> run) {
  LANCET_RETURN_IF_ERROR(run());
  double least = std::numeric_limits<double>::infinity();
  for (int i = 0; i < repetitions; ++i) {
    const double begin = BenchSeconds(clock);
    LANCET_RETURN_IF_ERROR(run());
    least = std::min(least, BenchSeconds(clock) - begin);
  }
  return least;
}

ProcessMemory ReadProcessMemory() {
  ProcessMemory memory;
  std::ifstream status("/proc/self/status");
  std::string key;
  int64_t kib = 0;
  for (std::string line; std::getline(status, line);) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    key = line.substr(0, colon);
    kib = std::strtoll(line.c_str() + colon + 1, nullptr, 10);
    if (key == "VmRSS") memory.resident = kib << 10;
    if (key == "RssAnon") memory.anonymous = kib << 10;
    if (key == "VmHWM") memory.peak = kib << 10;
  }
  return memory;
}

void ResetPeakMemory() {
  malloc_trim(0);
  std::ofstream("/proc/self/clear_refs") << "5";
}

}  // namespace lancet
