// The yardsticks of engine_bench and scaling_bench: what the machine reaches at best, measured in the same
// run, and clocks for machines that do other work as well.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/kernel_context.h"

namespace lancet {

struct MachineLimits {
  double flops = 0;        // FLOP/s of multiply-adds on registers, all threads
  double int8_blocks = 0;  // the same of whole blocks of 16 products of bytes (peak.h)
  double read_bytes = 0;   // bytes/s read from memory, all threads together
};

// With `threads` threads at once, on the instruction set of `ctx`. Takes about a second. Zeros on machines
// other than x86-64.
MachineLimits MeasureLimits(const KernelContext& ctx, int threads);
// Percent; 0 where there is no limit to compare with.
double Share(double reached, double limit);

// How time is taken. kThreadCpu: the processor time of the calling thread, which does its share of every
// loop: what a pass would take on a machine with nothing else to do.
enum class BenchClock { kWall, kThreadCpu };
absl::StatusOr<BenchClock> ParseBenchClock(const std::string& name);  // "wall" or "cpu"
double BenchSeconds(BenchClock clock);

// The least of `repetitions` runs after one that warms up, in seconds.
absl::StatusOr<double> LeastSeconds(BenchClock clock, int repetitions, absl::FunctionRef<absl::Status()> run);

// Resident memory of this process, in bytes: now, and the most since ResetPeakMemory (where the kernel allows
// that; else since the process began).
struct ProcessMemory {
  int64_t resident = 0;
  int64_t anonymous = 0;  // of it, not backed by a file
  int64_t peak = 0;
};
ProcessMemory ReadProcessMemory();
void ResetPeakMemory();

}  // namespace lancet
