// What the machine can do, measured: the yardsticks of kernels_bench.
#pragma once

#include <cstdint>

#include "kernels/kernel_context.h"

namespace lancet {

// FLOP/s of one thread on registers alone, with the widest multiply-add of an instruction set; a multiply-add
// counts as two. Takes about 50 ms.
double MeasurePeakFlops(CpuIsa isa);

// The same with products of bytes: VNNI's, or vpmaddubsw and the addition of its 16-bit sums (pmaddwd, of 16
// bits, for kPortable).
double MeasurePeakInt8(CpuIsa isa, bool vnni);

// The same of whole blocks as int8_gemm.h multiplies them: four products of bytes, the way from integers to
// f32, one multiply-add with a scale, on registers alone. What a product could reach if operands cost
// nothing.
double MeasureBlockInt8(CpuIsa isa, bool vnni);

// Bytes/s of one thread that reads `bytes` again and again.
double MeasureReadBandwidth(int64_t bytes);

}  // namespace lancet
