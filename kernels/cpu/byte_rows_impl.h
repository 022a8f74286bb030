// The loops of byte_rows_kernel.h, written once over `S`, which has Dots beside the primitives of simd_*.h.
#pragma once

#include <cstdint>

#include "kernels/cpu/byte_rows_kernel.h"
#include "kernels/cpu/unroll.h"

namespace lancet {

constexpr int kByteRowsTokens = 8;  // of x at a time

// One row of w with M rows of x from `token` on.
template <typename S, int M>
void ByteRow(const ByteRowsArgs& args, int64_t row, int64_t token) {
  int32_t sums[M];
  S::template Dots<M>(args.w + row * args.cols, args.x + token * args.cols, args.cols, sums);
  for (int m = 0; m < M; ++m) {
    const float value = static_cast<float>(sums[m]) * args.w_factors[row] * args.x_factors[token + m];
    S::StoreBf16N(args.y + (token + m) * args.y_stride + row, S::Set1(value), 1);
  }
}

template <typename S, int M = kByteRowsTokens>
void ByteRowOf(int tokens, const ByteRowsArgs& args, int64_t row, int64_t token) {
  if constexpr (M > 1) {
    if (tokens < M) return ByteRowOf<S, M - 1>(tokens, args, row, token);
  }
  ByteRow<S, M>(args, row, token);
}

template <typename S>
void RunByteRows(const ByteRowsArgs& args) {
  for (int64_t row = args.row_begin; row < args.row_end; ++row) {
    for (int64_t t = 0; t < args.tokens; t += kByteRowsTokens) {
      const int64_t left = args.tokens - t;
      ByteRowOf<S>(static_cast<int>(left < kByteRowsTokens ? left : kByteRowsTokens), args, row, t);
    }
  }
}

}  // namespace lancet
