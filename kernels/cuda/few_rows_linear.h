// y = x * w^T for a few rows of x (text decoding, the markers around pictures): bound by reading the weights,
// which are NVFP4 codes with their bf16 block scales, or bf16.
//
// Codes are expanded to bf16 (code * scale, rounded once, as everywhere in `w4a16`) in registers on their way
// into tensor-core products of 16 outputs x 8 tokens; sums are f32. A row's result depends on that row alone,
// to the bit: not on how many rows come with it.
//
// NVFP4 weights lie in panels: for each group of 16 output rows and each 64 columns, 32 lanes of 16 bytes.
// With g = lane / 4 and t = lane % 4, a lane has the 16 codes of columns 16t..16t+15 (one block) of row g in
// its first 8 bytes, those of row g + 8 in the others. A 32-bit word of eight codes c0..c7 keeps the even
// ones in its low half, the odd ones in its high half, the bits (sign, e1, e0, m) of a half's four codes at
//   code 0: 15, 8, 7, 6    code 1: 12, 5, 4, 3    code 2: 9, 2, 1, 0    code 3: 14, 13, 11, 10
// so that few operations bring two codes to where bf16 has sign, exponent and mantissa. Scales: per panel and
// 64 columns 32 lanes of two bf16, row g and row g + 8, multiplied by 2^(126 - shift), which makes up for the
// exponent bias of the expanded codes (2^-126); `shift` keeps large scales finite and is undone on the sums.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "common/bf16.h"
#include "kernels/cuda/launch_overlap.h"

namespace lancet::cuda {

inline constexpr int kPanelRows = 16;
inline constexpr int kPanelCols = 64;
// Rows of one launch; more go in several.
inline constexpr int kMaxFewRows = 8;
// Gate and up lie in turns of this many rows, so that whoever has one has the other.
inline constexpr int kGateUpTurn = 8;

// Weights [rows, cols]; cols is a multiple of 16, and panels are padded with zeros to whole 16 rows x 64
// columns.
struct PanelWeights {
  const uint4* codes = nullptr;      // [panels][ceil(cols / 64)][32]
  const uint32_t* scales = nullptr;  // [panels][ceil(cols / 64)][32]
  float scale_up = 1.0f;             // 2^shift
  int64_t rows = 0;
  int64_t cols = 0;

  static constexpr int64_t Panels(int64_t rows) { return (rows + kPanelRows - 1) / kPanelRows; }
  static constexpr int64_t Groups(int64_t cols) { return (cols + kPanelCols - 1) / kPanelCols; }
  static constexpr int64_t Lanes(int64_t rows, int64_t cols) { return Panels(rows) * Groups(cols) * 32; }
};

// Packs row-major device codes [rows, cols / 2] and scales [rows, cols / 16] (dense). scale_factor = 2^(126 -
// shift).
cudaError_t PackPanels(const uint8_t* codes, const bf16* scales, int64_t rows, int64_t cols,
                       float scale_factor, uint4* panel_codes, uint32_t* panel_scales, cudaStream_t stream);

// What happens to the sums.
enum class FewRowsOutput {
  kBf16,      // y = bf16(sum + bias), bias may be null
  kResidual,  // y = bf16(y + bf16(sum))
  kF32,       // y_f32 = sum: the partial sums of a row-parallel Linear
  kSiluMul,   // weights are rows of gate and up in turns of kGateUpTurn; y = bf16(bf16(silu(bf16(gate sum)))
              // * bf16(up sum)), [tokens, rows / 2]
};

// Where every rank of a group gets this rank's partial sums, as pairs of a value and a tag that says that it
// is there (peer_ops.h). The tag is one more than `sums`, of the device, says.
struct SharedSums {
  int ranks = 0;           // 0: not shared
  uint2* inboxes[8] = {};  // of every rank, [tokens, rows] with y_stride
  const uint32_t* sums = nullptr;
};

struct FewRowsArgs {
  const bf16* x = nullptr;  // [tokens, cols], rows x_stride apart
  int64_t x_stride = 0;
  int tokens = 0;  // 1..kMaxFewRows

  // If set, x goes through an RMS norm with this weight [cols] first (rounded as RmsNorm does).
  const bf16* norm = nullptr;
  float eps = 0;

  // Either packed weights, or bf16 [rows, cols] dense.
  PanelWeights panels;
  const bf16* dense = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;  // a multiple of 16, at most kMaxFewRowsCols

  FewRowsOutput output = FewRowsOutput::kBf16;
  const bf16* bias = nullptr;
  bf16* y = nullptr;  // [tokens, rows] (kSiluMul: rows / 2; rows is a multiple of 16), rows y_stride apart
  float* y_f32 = nullptr;
  SharedSums shared;  // kF32: instead of y_f32, if set
  int64_t y_stride = 0;

  // Other than kNone only if the kernel before is one of this stream's.
  LaunchOverlap overlap = LaunchOverlap::kOne;
};

// Activations of a launch lie in shared memory.
inline constexpr int64_t kMaxFewRowsCols = 13056;

// Enqueues, by default with programmatic launch: the weights' first loads overlap the kernel before.
cudaError_t FewRowsLinear(const FewRowsArgs& args, cudaStream_t stream);

}  // namespace lancet::cuda
