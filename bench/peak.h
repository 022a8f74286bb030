// What the machine can do, measured: the yardsticks of kernels_bench.
#pragma once

#include <cstdint>

#include "kernels/kernel_context.h"

namespace lancet {

// FLOP/s of one thread on registers alone, with the widest multiply-add of an instruction set; a multiply-add
// counts as two. Takes about 50 ms.
double MeasurePeakFlops(CpuIsa isa);

// Bytes/s of one thread that reads `bytes` again and again.
double MeasureReadBandwidth(int64_t bytes);

}  // namespace lancet
