// Per-head RMS norm and rotation of q and k, and the way of k and v into the caches.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "common/bf16.h"

namespace lancet::cuda {

// Where a row's keys and values go: layer l's key at base + l * layer_stride (in elements), its value
// v_offset behind.
struct KvSlot {
  bf16* base = nullptr;
  int64_t layer_stride = 0;
  int64_t v_offset = 0;
};

struct QkRopeArgs {
  bf16* qkv = nullptr;  // [rows, (heads + 2 kv_heads) * head_dim]: q is replaced in place, k and v only read
  int64_t stride = 0;   // of qkv
  int64_t rows = 0;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;              // a multiple of 64, at most 256
  const bf16* q_norm = nullptr;  // [head_dim]
  const bf16* k_norm = nullptr;  // [head_dim]
  float eps = 0;
  const bf16* cos = nullptr;  // [rows, head_dim / 2]
  const bf16* sin = nullptr;
  const uint8_t* wide = nullptr;  // [rows]: nonzero keeps f32 until the last rounding, see kernels/rope.h
  const KvSlot* slots = nullptr;  // [rows]
  int layer = 0;
};

// As kernels/rope.h computes it, for q in place and for k into the slots; v is copied.
cudaError_t QkNormRope(const QkRopeArgs& args, cudaStream_t stream);

}  // namespace lancet::cuda
