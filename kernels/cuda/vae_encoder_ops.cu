#include "kernels/cuda/device/bf16_math.cuh"
#include "kernels/cuda/vae_encoder_ops.h"

namespace lancet::cuda {
namespace {

using device::Load8;
using device::Store8;
using device::Vec8;

constexpr int kThreads = 256;
constexpr int64_t kPatchValues = 12;  // 3 colours x 2 columns x 2 rows

unsigned Blocks(int64_t n) { return static_cast<unsigned>((n + kThreads - 1) / kThreads); }

__device__ __forceinline__ int64_t GlobalIndex() {
  return blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x;
}

__global__ void PlanesKernel(const uint8_t* __restrict__ rgb, int64_t pixels, float* planes) {
  const int64_t i = GlobalIndex();
  if (i >= 3 * pixels) return;
  const float x = __fdiv_rn(static_cast<float>(rgb[i]), 255.0f);
  planes[i % 3 * pixels + i / 3] = __fsub_rn(x, 0.5f) * 2.0f;
}

__global__ void PatchifyKernel(const float* __restrict__ planes, int64_t height, int64_t width, bf16* y) {
  const int64_t i = GlobalIndex();
  if (i >= height * width * kPatchChannels) return;
  const int64_t channel = i % kPatchChannels;
  const int64_t column = i / kPatchChannels % width;
  const int64_t row = i / kPatchChannels / width;
  float value = 0.0f;
  if (channel < kPatchValues) {
    const int64_t dx = channel / 2 % 2;
    const int64_t dy = channel % 2;
    value = planes[((channel / 4) * 2 * height + 2 * row + dy) * 2 * width + 2 * column + dx];
  }
  y[i] = device::Narrow(value);
}

__global__ void AvgDownKernel(const bf16* __restrict__ x, int64_t width, int64_t in, int64_t out,
                              int64_t frame_factor, int64_t total, bf16* y) {
  const int64_t i = GlobalIndex();
  if (i >= total) return;
  const int64_t o = i % out;
  const int64_t column = i / out % width;
  const int64_t row = i / out / width;
  const int64_t group = 4 * frame_factor * in / out;
  float sum = 0.0f;
  for (int64_t k = o * group; k < (o + 1) * group; ++k) {
    // Frames before the only one are zeros, which count.
    if (k / 4 % frame_factor != frame_factor - 1) continue;
    const int64_t channel = k / 4 / frame_factor;
    sum += device::Widen(x[((2 * row + k / 2 % 2) * 2 * width + 2 * column + k % 2) * in + channel]);
  }
  y[i] = device::Narrow(sum / static_cast<float>(group));
}

__global__ void PadKernel(const bf16* __restrict__ x, int64_t height, int64_t width, int64_t vectors,
                          int64_t total, bf16* y) {
  const int64_t i = GlobalIndex();  // in vectors of eight
  if (i >= total) return;
  const int64_t column = i / vectors % (width + 1);
  const int64_t row = i / vectors / (width + 1);
  uint4 value = make_uint4(0, 0, 0, 0);
  if (row < height && column < width) {
    value = reinterpret_cast<const uint4*>(x)[(row * width + column) * vectors + i % vectors];
  }
  reinterpret_cast<uint4*>(y)[i] = value;
}

__global__ void AddMapKernel(const bf16* __restrict__ x, int64_t vectors, bf16* y) {
  const int64_t i = GlobalIndex();
  if (i >= vectors) return;
  Vec8 sum = Load8(y + 8 * i);
  const Vec8 addend = Load8(x + 8 * i);
#pragma unroll
  for (int j = 0; j < 8; ++j) sum.v[j] += addend.v[j];
  Store8(y + 8 * i, sum);
}

__global__ void NormaliseKernel(const bf16* __restrict__ moments, const float* __restrict__ mean,
                                const float* __restrict__ inv_std, const float* __restrict__ noise, int64_t n,
                                int64_t channels, bf16* latents) {
  const int64_t i = GlobalIndex();
  if (i >= n * channels) return;
  const int64_t c = i % channels;
  const bf16* row = moments + i / channels * 2 * channels;
  const float centred = device::Round(__fsub_rn(device::Widen(row[c]), mean[c]));
  float value = device::Round(__fmul_rn(centred, inv_std[c]));
  if (noise != nullptr) {
    const float deviation = expf(0.5f * device::Widen(row[channels + c]));
    value = __fadd_rn(value, __fmul_rn(noise[i], deviation));
  }
  latents[i] = device::Narrow(value);
}

}  // namespace

cudaError_t RgbToPlanes(const uint8_t* rgb, int64_t pixels, float* planes, cudaStream_t stream) {
  PlanesKernel<<<Blocks(3 * pixels), kThreads, 0, stream>>>(rgb, pixels, planes);
  return cudaGetLastError();
}

cudaError_t Patchify(const float* planes, int64_t height, int64_t width, bf16* y, cudaStream_t stream) {
  PatchifyKernel<<<Blocks(height * width * kPatchChannels), kThreads, 0, stream>>>(planes, height, width, y);
  return cudaGetLastError();
}

cudaError_t AvgDown(const bf16* x, int64_t height, int64_t width, int64_t in, int64_t out,
                    int64_t frame_factor, bf16* y, cudaStream_t stream) {
  if (4 * frame_factor * in % out != 0) return cudaErrorInvalidValue;
  const int64_t total = height * width * out;
  AvgDownKernel<<<Blocks(total), kThreads, 0, stream>>>(x, width, in, out, frame_factor, total, y);
  return cudaGetLastError();
}

cudaError_t PadAfter(const bf16* x, int64_t height, int64_t width, int64_t channels, bf16* y,
                     cudaStream_t stream) {
  if (channels % 8 != 0) return cudaErrorInvalidValue;
  const int64_t vectors = channels / 8;
  const int64_t total = (height + 1) * (width + 1) * vectors;
  PadKernel<<<Blocks(total), kThreads, 0, stream>>>(x, height, width, vectors, total, y);
  return cudaGetLastError();
}

cudaError_t AddMap(const bf16* x, int64_t n, bf16* y, cudaStream_t stream) {
  if (n % 8 != 0) return cudaErrorInvalidValue;
  AddMapKernel<<<Blocks(n / 8), kThreads, 0, stream>>>(x, n / 8, y);
  return cudaGetLastError();
}

cudaError_t NormaliseLatents(const bf16* moments, const float* mean, const float* inv_std, const float* noise,
                             int64_t n, int64_t channels, bf16* latents, cudaStream_t stream) {
  NormaliseKernel<<<Blocks(n * channels), kThreads, 0, stream>>>(moments, mean, inv_std, noise, n, channels,
                                                                 latents);
  return cudaGetLastError();
}

}  // namespace lancet::cuda
