#include <math_constants.h>

#include "kernels/cuda/device/bf16_math.cuh"
#include "kernels/cuda/device/reduce.cuh"
#include "kernels/cuda/vae_ops.h"

namespace lancet::cuda {
namespace {

using device::Load8;
using device::Store8;
using device::Vec8;

constexpr int kThreads = 256;
constexpr int kMaxChunks = 8;  // of 256 channels: a warp holds a pixel of up to 2048

unsigned Blocks(int64_t n) { return static_cast<unsigned>((n + kThreads - 1) / kThreads); }

__device__ __forceinline__ int64_t GlobalIndex() {
  return blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x;
}

__global__ void DenormaliseKernel(const float* __restrict__ latents, const float* __restrict__ inv_std,
                                  const float* __restrict__ mean, int64_t n, int64_t channels, bf16* z) {
  const int64_t i = GlobalIndex();
  if (i >= n * channels) return;
  const int64_t c = i % channels;
  z[i] = device::Narrow(__fadd_rn(device::Round(__fdiv_rn(latents[i], inv_std[c])), mean[c]));
}

__global__ void WidenKernel(const bf16* __restrict__ x, int64_t n, float* y) {
  const int64_t i = GlobalIndex();
  if (i < n) y[i] = device::Widen(x[i]);
}

__global__ void __launch_bounds__(kThreads)
    ChannelNormKernel(const bf16* __restrict__ x, const float* __restrict__ gamma, int64_t pixels,
                      int64_t channels, bool silu, bf16* y) {
  const int64_t pixel = blockIdx.x * static_cast<int64_t>(kThreads / 32) + threadIdx.x / 32;
  if (pixel >= pixels) return;
  const int lane = threadIdx.x % 32;
  Vec8 value[kMaxChunks];
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kMaxChunks; ++i) {
    const int64_t c = (lane + 32 * i) * 8;
    if (c >= channels) break;
    value[i] = Load8(x + pixel * channels + c);
#pragma unroll
    for (int j = 0; j < 8; ++j) sum = fmaf(value[i].v[j], value[i].v[j], sum);
  }
  const float norm = fmaxf(sqrtf(device::WarpSum(sum)), 1e-12f);
  const float scale = sqrtf(static_cast<float>(channels)) / norm;
#pragma unroll
  for (int i = 0; i < kMaxChunks; ++i) {
    const int64_t c = (lane + 32 * i) * 8;
    if (c >= channels) break;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const float v = value[i].v[j] * scale * gamma[c + j];
      value[i].v[j] = silu ? device::SiluOf(v) : v;
    }
    Store8(y + pixel * channels + c, value[i]);
  }
}

__global__ void UpsampleKernel(const bf16* __restrict__ x, int64_t width, int64_t channels, int64_t total,
                               bf16* y) {
  const int64_t i = GlobalIndex();  // in vectors of eight
  if (i >= total) return;
  const int64_t vectors = channels / 8;
  const int64_t c = i % vectors;
  const int64_t column = i / vectors % (2 * width);
  const int64_t row = i / vectors / (2 * width);
  reinterpret_cast<uint4*>(y)[i] =
      reinterpret_cast<const uint4*>(x)[((row / 2) * width + column / 2) * vectors + c];
}

__global__ void DupUpKernel(const bf16* __restrict__ x, int64_t width, int64_t in, int64_t out,
                            int64_t frame_factor, int64_t total, bf16* y) {
  const int64_t i = GlobalIndex();
  if (i >= total) return;
  const int64_t o = i % out;
  const int64_t column = i / out % (2 * width);
  const int64_t row = i / out / (2 * width);
  const int64_t repeats = 4 * frame_factor * out / in;
  const int64_t from = (4 * (o * frame_factor + frame_factor - 1) + 2 * (row % 2) + column % 2) / repeats;
  const bf16 addend = x[((row / 2) * width + column / 2) * in + from];
  y[i] = device::Narrow(device::Widen(y[i]) + device::Widen(addend));
}

__global__ void UnpatchifyKernel(const bf16* __restrict__ x, int64_t height, int64_t width, bool clamp,
                                 float* planes) {
  const int64_t i = GlobalIndex();
  const int64_t area = 4 * height * width;
  if (i >= 3 * area) return;
  const int64_t colour = i / area;
  const int64_t row = i % area / (2 * width);
  const int64_t column = i % (2 * width);
  const int64_t channel = 4 * colour + 2 * (column % 2) + row % 2;
  const float value = device::Widen(x[((row / 2) * width + column / 2) * 12 + channel]);
  planes[i] = clamp ? fminf(fmaxf(value, -1.0f), 1.0f) : value;
}

__global__ void RgbKernel(const float* __restrict__ planes, int64_t pixels, uint8_t* rgb) {
  const int64_t i = GlobalIndex();
  if (i >= 3 * pixels) return;
  const float value = planes[i % 3 * pixels + i / 3];
  if (isnan(value)) {
    rgb[i] = 0;
    return;
  }
  const float clamped = fminf(fmaxf(value, -1.0f), 1.0f);
  rgb[i] = static_cast<uint8_t>(rintf(__fmul_rn(__fadd_rn(__fmul_rn(clamped, 0.5f), 0.5f), 255.0f)));
}

__global__ void __launch_bounds__(kThreads) SoftmaxKernel(const float* __restrict__ scores, float scale,
                                                          int64_t cols, int64_t stride, bf16* probabilities) {
  __shared__ float shared[2][kThreads / 32];
  const float* row = scores + blockIdx.x * stride;
  float max = -CUDART_INF_F;
  for (int64_t c = threadIdx.x; c < cols; c += kThreads) max = fmaxf(max, row[c]);
  max = device::BlockMax<kThreads>(max, shared[0]);
  float sum = 0.0f;
  for (int64_t c = threadIdx.x; c < cols; c += kThreads) sum += __expf((row[c] - max) * scale);
  sum = device::BlockSum<kThreads>(sum, shared[1]);
  const float inverse = 1.0f / sum;
  for (int64_t c = threadIdx.x; c < stride; c += kThreads) {
    const float p = c < cols ? __expf((row[c] - max) * scale) * inverse : 0.0f;
    probabilities[blockIdx.x * stride + c] = device::Narrow(p);
  }
}

constexpr int kTile = 32;

__global__ void TransposeKernel(const bf16* __restrict__ x, int64_t x_stride, int64_t rows, int64_t cols,
                                bf16* y, int64_t y_stride) {
  __shared__ bf16 tile[kTile][kTile + 2];
  const int64_t row0 = blockIdx.y * static_cast<int64_t>(kTile);
  const int64_t col0 = blockIdx.x * static_cast<int64_t>(kTile);
  for (int i = threadIdx.y; i < kTile; i += 8) {
    if (row0 + i < rows && col0 + threadIdx.x < cols)
      tile[i][threadIdx.x] = x[(row0 + i) * x_stride + col0 + threadIdx.x];
  }
  __syncthreads();
  for (int i = threadIdx.y; i < kTile; i += 8) {
    if (col0 + i < cols && row0 + threadIdx.x < rows)
      y[(col0 + i) * y_stride + row0 + threadIdx.x] = tile[threadIdx.x][i];
  }
}

}  // namespace

cudaError_t DenormaliseLatents(const float* latents, const float* inv_std, const float* mean, int64_t n,
                               int64_t channels, bf16* z, cudaStream_t stream) {
  DenormaliseKernel<<<Blocks(n * channels), kThreads, 0, stream>>>(latents, inv_std, mean, n, channels, z);
  return cudaGetLastError();
}

cudaError_t WidenRows(const bf16* x, int64_t n, float* y, cudaStream_t stream) {
  WidenKernel<<<Blocks(n), kThreads, 0, stream>>>(x, n, y);
  return cudaGetLastError();
}

cudaError_t ChannelNorm(const bf16* x, const float* gamma, int64_t pixels, int64_t channels, bool silu,
                        bf16* y, cudaStream_t stream) {
  if (channels % 8 != 0 || channels > kMaxChunks * 256) return cudaErrorInvalidValue;
  const unsigned blocks = static_cast<unsigned>((pixels + kThreads / 32 - 1) / (kThreads / 32));
  ChannelNormKernel<<<blocks, kThreads, 0, stream>>>(x, gamma, pixels, channels, silu, y);
  return cudaGetLastError();
}

cudaError_t Upsample(const bf16* x, int64_t height, int64_t width, int64_t channels, bf16* y,
                     cudaStream_t stream) {
  if (channels % 8 != 0) return cudaErrorInvalidValue;
  const int64_t total = 4 * height * width * (channels / 8);
  UpsampleKernel<<<Blocks(total), kThreads, 0, stream>>>(x, width, channels, total, y);
  return cudaGetLastError();
}

cudaError_t DupUpAdd(const bf16* x, int64_t height, int64_t width, int64_t in, int64_t out,
                     int64_t frame_factor, bf16* y, cudaStream_t stream) {
  if (4 * frame_factor * out % in != 0) return cudaErrorInvalidValue;
  const int64_t total = 4 * height * width * out;
  DupUpKernel<<<Blocks(total), kThreads, 0, stream>>>(x, width, in, out, frame_factor, total, y);
  return cudaGetLastError();
}

cudaError_t Unpatchify(const bf16* x, int64_t height, int64_t width, bool clamp, float* planes,
                       cudaStream_t stream) {
  UnpatchifyKernel<<<Blocks(12 * height * width), kThreads, 0, stream>>>(x, height, width, clamp, planes);
  return cudaGetLastError();
}

cudaError_t PlanesToRgb(const float* planes, int64_t height, int64_t width, uint8_t* rgb,
                        cudaStream_t stream) {
  RgbKernel<<<Blocks(3 * height * width), kThreads, 0, stream>>>(planes, height * width, rgb);
  return cudaGetLastError();
}

cudaError_t SoftmaxRows(const float* scores, float scale, int64_t rows, int64_t cols, int64_t stride,
                        bf16* probabilities, cudaStream_t stream) {
  SoftmaxKernel<<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(scores, scale, cols, stride,
                                                                      probabilities);
  return cudaGetLastError();
}

cudaError_t Transpose(const bf16* x, int64_t x_stride, int64_t rows, int64_t cols, bf16* y, int64_t y_stride,
                      cudaStream_t stream) {
  const dim3 blocks(static_cast<unsigned>((cols + kTile - 1) / kTile),
                    static_cast<unsigned>((rows + kTile - 1) / kTile));
  TransposeKernel<<<blocks, dim3(kTile, 8), 0, stream>>>(x, x_stride, rows, cols, y, y_stride);
  return cudaGetLastError();
}

}  // namespace lancet::cuda
