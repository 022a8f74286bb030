#include "kernels/cuda/device/rope.cuh"
#include "kernels/cuda/qk_rope.h"

namespace lancet::cuda {
namespace {

constexpr int kWarps = 8;

// One warp a head of a row: query heads, then key heads, then value heads.
template <int HalfPairs>
__global__ void __launch_bounds__(kWarps * 32) QkRopeKernel(QkRopeArgs p) {
  const int per_row = p.heads + 2 * p.kv_heads;
  const int64_t task = blockIdx.x * static_cast<int64_t>(kWarps) + threadIdx.x / 32;
  const int64_t row = task / per_row;
  if (row >= p.rows) return;
  const int which = static_cast<int>(task % per_row);
  bf16* from = p.qkv + row * p.stride + which * p.head_dim;
  device::RopeHead<HalfPairs> head = device::LoadHead<HalfPairs>(from, p.head_dim);
  bf16* to = from;
  if (which >= p.heads) {
    const KvSlot slot = p.slots[row];
    const int kv = which - p.heads;
    to = slot.base + p.layer * slot.layer_stride;
    to += kv < p.kv_heads ? kv * p.head_dim : slot.v_offset + (kv - p.kv_heads) * p.head_dim;
  }
  if (which < p.heads + p.kv_heads) {
    const int64_t turn = row * (p.head_dim / 2);
    device::NormRope(head, p.head_dim,
                     device::LoadHead<HalfPairs>(which < p.heads ? p.q_norm : p.k_norm, p.head_dim), p.eps,
                     device::LoadTurn<HalfPairs>(p.cos + turn, p.sin + turn, p.head_dim), p.wide[row] != 0);
  }
  device::StoreHead(to, p.head_dim, head);
}

}  // namespace

cudaError_t QkNormRope(const QkRopeArgs& args, cudaStream_t stream) {
  const int64_t tasks = args.rows * (args.heads + 2 * args.kv_heads);
  if (tasks == 0) return cudaSuccess;
  const unsigned blocks = static_cast<unsigned>((tasks + kWarps - 1) / kWarps);
  if (args.head_dim <= 128) {
    QkRopeKernel<1><<<blocks, kWarps * 32, 0, stream>>>(args);
  } else {
    QkRopeKernel<2><<<blocks, kWarps * 32, 0, stream>>>(args);
  }
  return cudaGetLastError();
}

}  // namespace lancet::cuda
