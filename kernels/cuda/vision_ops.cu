#include "kernels/cuda/device/bf16_math.cuh"
#include "kernels/cuda/vision_ops.h"

namespace lancet::cuda {
namespace {

constexpr int kThreads = 256;

unsigned Blocks(int64_t n) { return static_cast<unsigned>((n + kThreads - 1) / kThreads); }

__device__ __forceinline__ int64_t GlobalIndex() {
  return blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x;
}

// A block of threads per patch.
__global__ void __launch_bounds__(kThreads) CutKernel(CutPatchesArgs p) {
  const int64_t patch = blockIdx.x;
  const int64_t area = p.side * p.side;
  const int64_t values = 3 * p.frames * area;
  bf16* out = p.out + patch * values;
  if (patch >= p.patches) {
    for (int64_t i = threadIdx.x; i < values; i += kThreads) out[i] = bf16{0};
    return;
  }
  const PatchPosition place = p.places[patch];
  const uint8_t* corner = p.rgb + (place.row * p.side * p.width + place.col * p.side) * 3;
  for (int64_t i = threadIdx.x; i < values; i += kThreads) {
    const int64_t channel = i / area / p.frames;
    const int64_t y = i % area / p.side;
    const int64_t x = i % p.side;
    out[i] = p.value_of[channel * 256 + corner[(y * p.width + x) * 3 + channel]];
  }
}

struct Vec4 {
  float v[4];
};

__device__ __forceinline__ Vec4 Load4(const bf16* p) {
  const uint2 raw = *reinterpret_cast<const uint2*>(p);
  return {{device::LowHalf(raw.x), device::HighHalf(raw.x), device::LowHalf(raw.y), device::HighHalf(raw.y)}};
}

__device__ __forceinline__ void Store4(bf16* p, const Vec4& x) {
  *reinterpret_cast<uint2*>(p) =
      make_uint2(device::PackPair(x.v[0], x.v[1]), device::PackPair(x.v[2], x.v[3]));
}

// A thread has four values of a head's first half and their partners in the second.
__global__ void RotateKernel(const PatchPosition* __restrict__ places, const bf16* __restrict__ cos,
                             const bf16* __restrict__ sin, int64_t total, int64_t heads, int64_t head_dim,
                             int64_t x_stride, bf16* x) {
  const int64_t i = GlobalIndex();
  if (i >= total) return;
  const int64_t half = head_dim / 2;
  const int64_t quarter = head_dim / 4;
  const int64_t d = i % (half / 4) * 4;
  const int64_t head = i / (half / 4) % heads;
  const int64_t row = i / (half / 4) / heads;
  const PatchPosition place = places[row];
  const int64_t angle = d < quarter ? place.row * quarter + d : place.col * quarter + d - quarter;
  const Vec4 c = Load4(cos + angle);
  const Vec4 s = Load4(sin + angle);
  bf16* first = x + row * x_stride + head * head_dim + d;
  Vec4 a = Load4(first);
  Vec4 b = Load4(first + half);
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    // Products are rounded apart, as the reference's are.
    const float turned = __fsub_rn(__fmul_rn(a.v[j], c.v[j]), __fmul_rn(b.v[j], s.v[j]));
    b.v[j] = __fadd_rn(__fmul_rn(b.v[j], c.v[j]), __fmul_rn(a.v[j], s.v[j]));
    a.v[j] = turned;
  }
  Store4(first, a);
  Store4(first + half, b);
}

__global__ void GeluKernel(bf16* x, int64_t n) {
  const int64_t i = GlobalIndex();
  if (i >= n) return;
  const float value = device::Widen(x[i]);
  x[i] = device::Narrow(value * normcdff(value));
}

}  // namespace

cudaError_t CutPatches(const CutPatchesArgs& args, cudaStream_t stream) {
  if (args.patches < 1 || args.rows < args.patches) return cudaErrorInvalidValue;
  CutKernel<<<static_cast<unsigned>(args.rows), kThreads, 0, stream>>>(args);
  return cudaGetLastError();
}

cudaError_t RotateByPlace(const PatchPosition* places, const bf16* cos, const bf16* sin, int64_t rows,
                          int64_t heads, int64_t head_dim, int64_t x_stride, bf16* x, cudaStream_t stream) {
  if (head_dim % 16 != 0) return cudaErrorInvalidValue;
  const int64_t total = rows * heads * (head_dim / 8);
  if (total == 0) return cudaSuccess;
  RotateKernel<<<Blocks(total), kThreads, 0, stream>>>(places, cos, sin, total, heads, head_dim, x_stride, x);
  return cudaGetLastError();
}

cudaError_t Gelu(bf16* x, int64_t n, cudaStream_t stream) {
  if (n == 0) return cudaSuccess;
  GeluKernel<<<Blocks(n), kThreads, 0, stream>>>(x, n);
  return cudaGetLastError();
}

}  // namespace lancet::cuda
