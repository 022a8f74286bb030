// How tokens and latents enter the residual stream.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "common/bf16.h"

namespace lancet::cuda {

// out[i] = table[ids[i]]. table: [vocabulary, cols]; ids: [rows], each valid; cols a multiple of 8.
cudaError_t GatherRows(const bf16* table, const int32_t* ids, int64_t rows, int64_t cols, bf16* out,
                       cudaStream_t stream);

// The position table in parts: [side, th_cols] for the t and h axes, [side, cols - 2 th_cols] for w.
struct PositionTable {
  const bf16* by_position = nullptr;
  const bf16* by_position_w = nullptr;
  int64_t side = 0;
  int64_t th_cols = 0;
};

// x[i] = bf16(bf16(x[i] + times[*step]) + position row of latent i). Latents lie row by row in a picture
// `latent_width` wide; the flat index decodes as in the model's table (worker/model/latent_embedding.h).
// times: [steps, cols]; step: on the device; x: [latents, cols].
cudaError_t AddTimeAndPosition(const bf16* times, const int32_t* step, const PositionTable& table,
                               int64_t latents, int64_t latent_width, int64_t cols, bf16* x,
                               cudaStream_t stream);

}  // namespace lancet::cuda
