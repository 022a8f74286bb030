// NVFP4 weights in the forms that matrix units without FP4 read: bf16, or E4M3 with a factor per output row.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "common/bf16.h"

namespace lancet::cuda {

// out[r, c] = bf16(code * scale). codes: [rows, cols / 2], scales: [rows, cols / 16], out rows out_stride
// apart (a multiple of 8). cols is a multiple of 16.
cudaError_t ExpandToBf16(const uint8_t* codes, const bf16* scales, int64_t rows, int64_t cols, bf16* out,
                         int64_t out_stride, cudaStream_t stream);

// out[r, c] = E4M3(code * scale / factor[r]), factor[r] = amax of the row / 448 (1 for a row of zeros), as
// kernels/quantise.h defines it.
cudaError_t ExpandToFp8(const uint8_t* codes, const bf16* scales, int64_t rows, int64_t cols, uint8_t* out,
                        int64_t out_stride, float* factors, cudaStream_t stream);

// Block scales as tiled E4M3 bytes under one factor (device): tiled[...] = E4M3(scale / *factor), padding
// zeroed. `tiled` holds ScaleTileBytes(rows, blocks) bytes.
cudaError_t TileScales(const bf16* scales, int64_t rows, int64_t blocks, const float* factor, uint8_t* tiled,
                       cudaStream_t stream);

}  // namespace lancet::cuda
