// y = silu(x gate^T) * (x up^T) in one launch: the first half of an MLP for many rows, whose sums never leave
// the tensor cores' registers. Hopper (sm_90a) alone; elsewhere a product and SiluMul do it.
//
// Sums run over the columns in order: in f32, for E4M3 in the tensor cores' 14 bits or so. Both are rounded
// to bf16, then as SiluMul rounds. A row's result depends on that row alone, to the bit.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "common/bf16.h"

namespace lancet::cuda {

struct GatedProductArgs {
  const void* x = nullptr;        // [tokens, cols], bf16, or E4M3 if there are factors
  const void* gate_up = nullptr;  // [2 * inner, cols] likewise, rows of gate and up in turns of kGateUpTurn
  const float* x_factors = nullptr;        // [tokens]: value = byte * factor
  const float* gate_up_factors = nullptr;  // [2 * inner]
  bf16* y = nullptr;                       // [tokens, inner]
  int64_t tokens = 0;
  int64_t inner = 0;
  int64_t cols = 0;
};

// Whether the current device and the sizes of the weights allow it: whole tiles of 128 of `inner` and
// `cols`. Never depends on the number of tokens.
bool HasGatedProduct(int64_t inner, int64_t cols);

// cudaErrorNotSupported unless HasGatedProduct.
cudaError_t GatedProduct(const GatedProductArgs& args, cudaStream_t stream);

}  // namespace lancet::cuda
