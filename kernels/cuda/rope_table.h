// Cosines and sines of M-RoPE for the rows of a pass.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "common/bf16.h"

namespace lancet::cuda {

struct RopeTableArgs {
  const int32_t* t = nullptr;  // [rows] positions on the three axes
  const int32_t* h = nullptr;
  const int32_t* w = nullptr;
  int64_t rows = 0;
  const float* inverse_frequency = nullptr;  // [frequencies], bf16 values
  int frequencies = 0;                       // head_dim / 2
  int t_section = 0;                         // frequencies that turn with t, then with h; the rest with w
  int h_section = 0;
  bf16* cos = nullptr;  // [rows, frequencies]
  bf16* sin = nullptr;
};

// As worker/model/rope_table.h: the angle is an f32 product, its cosine is taken in f64 and rounded to bf16.
cudaError_t FillRopeTable(const RopeTableArgs& args, cudaStream_t stream);

}  // namespace lancet::cuda
