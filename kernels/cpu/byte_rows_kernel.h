// Dot products of rows of bytes, per instruction set; plain data and function pointers only, as in
// panel_kernel.h. Sums are integers, so every kernel gives the same.
#pragma once

#include <cstdint>

namespace lancet {

// Rows of x are few, and those of w are read once for all of them.
struct ByteRowsArgs {
  const int8_t* x = nullptr;  // [tokens][cols], values from -127 to 127
  int64_t tokens = 0;
  const int8_t* w = nullptr;  // [rows][cols], likewise
  int64_t cols = 0;           // a multiple of 32, below 2^17: sums stay below 2^31
  int64_t row_begin = 0;
  int64_t row_end = 0;
  const float* w_factors = nullptr;  // [rows]
  const float* x_factors = nullptr;  // [tokens]
  uint16_t* y = nullptr;             // [tokens][>= rows] bf16: sum * w_factor * x_factor
  int64_t y_stride = 0;
};

using ByteRowsKernel = void (*)(const ByteRowsArgs& args);

void ByteRowsPortable(const ByteRowsArgs& args);
void ByteRowsAvx2(const ByteRowsArgs& args);

}  // namespace lancet
