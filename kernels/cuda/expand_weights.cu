#include "kernels/cuda/device/bf16_math.cuh"
#include "kernels/cuda/device/reduce.cuh"
#include "kernels/cuda/device/small_formats.cuh"
#include "kernels/cuda/expand_weights.h"

namespace lancet::cuda {
namespace {

constexpr int kThreads = 256;

// Half a block of 16: eight codes from four bytes.
__device__ __forceinline__ void ExpandEight(uint32_t codes, float scale, float (&out)[8]) {
#pragma unroll
  for (int i = 0; i < 8; ++i) out[i] = device::WidenE2m1(codes >> (4 * i)) * scale;
}

__global__ void ExpandToBf16Kernel(const uint8_t* __restrict__ codes, const bf16* __restrict__ scales,
                                   int64_t rows, int64_t cols, bf16* out, int64_t out_stride) {
  const int64_t index = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x;
  const int64_t row = index / (cols / 8);
  if (row >= rows) return;
  const int64_t col = index % (cols / 8) * 8;
  device::Vec8 value;
  ExpandEight(*reinterpret_cast<const uint32_t*>(codes + (row * cols + col) / 2),
              device::Widen(scales[(row * cols + col) / 16]), value.v);
  device::Store8(out + row * out_stride + col, value);
}

__global__ void __launch_bounds__(kThreads)
    ExpandToFp8Kernel(const uint8_t* __restrict__ codes, const bf16* __restrict__ scales, int64_t cols,
                      uint8_t* out, int64_t out_stride, float* factors) {
  __shared__ float maxima[kThreads / 32];
  const int64_t row = blockIdx.x;
  float largest = 0.0f;
  for (int64_t col = threadIdx.x * 8; col < cols; col += kThreads * 8) {
    float value[8];
    ExpandEight(*reinterpret_cast<const uint32_t*>(codes + (row * cols + col) / 2),
                device::Widen(scales[(row * cols + col) / 16]), value);
#pragma unroll
    for (int i = 0; i < 8; ++i) largest = fmaxf(largest, fabsf(value[i]));
  }
  largest = device::BlockMax<kThreads>(largest, maxima);
  const float factor = largest > 0.0f ? largest / 448.0f : 1.0f;
  const float inverse = 1.0f / factor;
  if (threadIdx.x == 0) factors[row] = factor;
  for (int64_t col = threadIdx.x * 8; col < cols; col += kThreads * 8) {
    float v[8];
    ExpandEight(*reinterpret_cast<const uint32_t*>(codes + (row * cols + col) / 2),
                device::Widen(scales[(row * cols + col) / 16]), v);
    const uint32_t low = device::PackE4m3(v[0] * inverse, v[1] * inverse, v[2] * inverse, v[3] * inverse);
    const uint32_t high = device::PackE4m3(v[4] * inverse, v[5] * inverse, v[6] * inverse, v[7] * inverse);
    *reinterpret_cast<uint2*>(out + row * out_stride + col) = make_uint2(low, high);
  }
}

// One thread a byte of the tiled result.
__global__ void TileScalesKernel(const bf16* __restrict__ scales, int64_t rows, int64_t blocks,
                                 const float* factor, uint8_t* tiled, int64_t bytes) {
  const int64_t index = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x;
  if (index >= bytes) return;
  const int64_t tile_cols = (blocks + 3) / 4;
  const int64_t tile = index / 512;
  const int64_t inside = index % 512;
  const int64_t row = tile / tile_cols * 128 + inside / 16 + inside % 16 / 4 * 32;
  const int64_t block = tile % tile_cols * 4 + inside % 4;
  uint8_t byte = 0;
  if (row < rows && block < blocks) {
    byte = device::NarrowE4m3(__fdiv_rn(device::Widen(scales[row * blocks + block]), *factor));
  }
  tiled[index] = byte;
}

unsigned Blocks(int64_t n) { return static_cast<unsigned>((n + kThreads - 1) / kThreads); }

}  // namespace

cudaError_t ExpandToBf16(const uint8_t* codes, const bf16* scales, int64_t rows, int64_t cols, bf16* out,
                         int64_t out_stride, cudaStream_t stream) {
  if (rows == 0 || cols == 0) return cudaSuccess;
  ExpandToBf16Kernel<<<Blocks(rows * (cols / 8)), kThreads, 0, stream>>>(codes, scales, rows, cols, out,
                                                                         out_stride);
  return cudaGetLastError();
}

cudaError_t ExpandToFp8(const uint8_t* codes, const bf16* scales, int64_t rows, int64_t cols, uint8_t* out,
                        int64_t out_stride, float* factors, cudaStream_t stream) {
  if (rows == 0 || cols == 0) return cudaSuccess;
  ExpandToFp8Kernel<<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(codes, scales, cols, out,
                                                                          out_stride, factors);
  return cudaGetLastError();
}

cudaError_t TileScales(const bf16* scales, int64_t rows, int64_t blocks, const float* factor, uint8_t* tiled,
                       cudaStream_t stream) {
  const int64_t bytes = (rows + 127) / 128 * ((blocks + 3) / 4) * 512;
  if (bytes == 0) return cudaSuccess;
  TileScalesKernel<<<Blocks(bytes), kThreads, 0, stream>>>(scales, rows, blocks, factor, tiled, bytes);
  return cudaGetLastError();
}

}  // namespace lancet::cuda
