// The steps of the vision tower that the trunk does not have. Rows are 16-byte aligned.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "common/bf16.h"

namespace lancet::cuda {

// Place of a patch inside its picture, in patches.
struct PatchPosition {
  int32_t row = 0;
  int32_t col = 0;
};

// A picture as patches in a given order: row i is the patch at places[i], with values channel, frame, row,
// column, slowest first; all frames are the same. Rows from `patches` on are zeros.
struct CutPatchesArgs {
  const uint8_t* rgb = nullptr;           // [height, width, 3]
  int64_t width = 0;                      // in pixels
  const PatchPosition* places = nullptr;  // [patches]
  const bf16* value_of = nullptr;         // [3, 256]: of a channel's byte
  int64_t patches = 0;
  int64_t rows = 0;     // of out, at least `patches`
  int64_t side = 0;     // pixels to a side of a patch
  int64_t frames = 0;   // of a patch
  bf16* out = nullptr;  // [rows, 3 * frames * side * side]
};
cudaError_t CutPatches(const CutPatchesArgs& args, cudaStream_t stream);

// Rotates heads in place (rotate-half), in f32 with one rounding. The first half of a head's angles goes by
// the patch's row, the second by its column.
//   x: [rows, heads * head_dim], rows x_stride apart   cos, sin: [side, head_dim / 4], by position
// head_dim a multiple of 16.
cudaError_t RotateByPlace(const PatchPosition* places, const bf16* cos, const bf16* sin, int64_t rows,
                          int64_t heads, int64_t head_dim, int64_t x_stride, bf16* x, cudaStream_t stream);

// x = bf16(gelu(x)) over n values, with the exact (erf) GELU.
cudaError_t Gelu(bf16* x, int64_t n, cudaStream_t stream);

}  // namespace lancet::cuda
