#include <math_constants.h>

#include "kernels/cuda/device/bf16_math.cuh"
#include "kernels/cuda/device/reduce.cuh"
#include "kernels/cuda/sampler_ops.h"

namespace lancet::cuda {
namespace {

constexpr int kThreads = 256;

unsigned Blocks(int64_t n) { return static_cast<unsigned>((n + kThreads - 1) / kThreads); }

__device__ __forceinline__ float Guided(float scale, float u, float v) {
  return device::Round(__fadd_rn(u, device::Round(__fmul_rn(scale, device::Round(__fsub_rn(v, u))))));
}

__global__ void __launch_bounds__(kThreads)
    GuidanceNormsKernel(float scale, const bf16* __restrict__ unconditional,
                        const bf16* __restrict__ velocity, int64_t n, double* partial) {
  __shared__ double sums[2][kThreads / 32];
  double velocity_sum = 0;
  double guided_sum = 0;
  for (int64_t i = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x; i < n;
       i += kNormBlocks * kThreads) {
    const float v = device::Widen(velocity[i]);
    const float w = Guided(scale, device::Widen(unconditional[i]), v);
    velocity_sum += static_cast<double>(v) * v;
    guided_sum += static_cast<double>(w) * w;
  }
  velocity_sum = device::BlockSum<kThreads>(velocity_sum, sums[0]);
  guided_sum = device::BlockSum<kThreads>(guided_sum, sums[1]);
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = velocity_sum;
    partial[kNormBlocks + blockIdx.x] = guided_sum;
  }
}

__global__ void __launch_bounds__(kThreads)
    GuidanceKernel(float scale, const bf16* __restrict__ unconditional, bf16* velocity, int64_t n,
                   const double* __restrict__ partial) {
  __shared__ float gain;
  if (threadIdx.x == 0) {
    double velocity_sum = 0;
    double guided_sum = 0;
    for (int b = 0; b < kNormBlocks; ++b) {
      velocity_sum += partial[b];
      guided_sum += partial[kNormBlocks + b];
    }
    const float ratio =
        static_cast<float>(sqrt(velocity_sum)) / (static_cast<float>(sqrt(guided_sum)) + 1e-8f);
    gain = device::Round(fminf(fmaxf(ratio, 0.0f), 1.0f));
  }
  __syncthreads();
  const int64_t i = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x;
  if (i >= n) return;
  const float w = Guided(scale, device::Widen(unconditional[i]), device::Widen(velocity[i]));
  velocity[i] = device::Narrow(w * gain);
}

__global__ void EulerKernel(const bf16* __restrict__ velocity, const StepScalars* __restrict__ scalars,
                            int64_t n, bf16* latents) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x;
  if (i >= n) return;
  const float step = device::Round(scalars->dt);
  const float moved = device::Round(__fmul_rn(device::Widen(velocity[i]), step));
  latents[i] = device::Narrow(__fsub_rn(device::Widen(latents[i]), moved));
}

__global__ void MultistepKernel(const bf16* __restrict__ velocity, const StepScalars* __restrict__ scalars,
                                int64_t n, float* clean, bf16* latents) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x;
  if (i >= n) return;
  const float x = device::Widen(latents[i]);
  const float estimate = __fsub_rn(x, __fmul_rn(scalars->t, device::Widen(velocity[i])));
  float next = __fadd_rn(__fmul_rn(scalars->keep, x), __fmul_rn(scalars->share, estimate));
  if (scalars->previous_share != 0.0f) next = __fadd_rn(next, __fmul_rn(scalars->previous_share, clean[i]));
  latents[i] = device::Narrow(next);
  clean[i] = estimate;
}

__global__ void EstimateKernel(const bf16* __restrict__ latents, const bf16* __restrict__ velocity, float t,
                               int64_t n, float* clean) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x;
  if (i >= n) return;
  clean[i] = __fsub_rn(device::Widen(latents[i]), __fmul_rn(t, device::Widen(velocity[i])));
}

__device__ __forceinline__ ArgmaxPair Better(ArgmaxPair a, ArgmaxPair b) {
  if (b.value > a.value || (b.value == a.value && b.index < a.index)) return b;
  return a;
}

__device__ __forceinline__ ArgmaxPair BlockBest(ArgmaxPair best, ArgmaxPair* shared) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    const ArgmaxPair other = {__shfl_xor_sync(0xffffffffu, best.value, offset),
                              __shfl_xor_sync(0xffffffffu, best.index, offset)};
    best = Better(best, other);
  }
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = best;
  __syncthreads();
  for (int w = 0; w < kThreads / 32; ++w) best = Better(best, shared[w]);
  return best;
}

__global__ void __launch_bounds__(kThreads)
    ArgmaxPartKernel(const bf16* __restrict__ logits, int64_t vocabulary, int64_t limit, ArgmaxPair* parts) {
  __shared__ ArgmaxPair shared[kThreads / 32];
  const bf16* row = logits + blockIdx.y * vocabulary;
  ArgmaxPair best = {-CUDART_INF_F, 0x7fffffff};
  for (int64_t i = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x; i < limit;
       i += kArgmaxBlocks * kThreads) {
    best = Better(best, {device::Widen(row[i]), static_cast<int32_t>(i)});
  }
  best = BlockBest(best, shared);
  if (threadIdx.x == 0) parts[blockIdx.y * kArgmaxBlocks + blockIdx.x] = best;
}

__global__ void __launch_bounds__(kThreads)
    ArgmaxKernel(const ArgmaxPair* __restrict__ parts, int32_t* ids, float* values) {
  __shared__ ArgmaxPair shared[kThreads / 32];
  ArgmaxPair best = {-CUDART_INF_F, 0x7fffffff};
  if (threadIdx.x < kArgmaxBlocks) best = parts[blockIdx.x * kArgmaxBlocks + threadIdx.x];
  best = BlockBest(best, shared);
  // All NaN or minus infinity: still a valid id.
  if (threadIdx.x != 0) return;
  ids[blockIdx.x] = best.index == 0x7fffffff ? 0 : best.index;
  if (values != nullptr) values[blockIdx.x] = best.value;
}

}  // namespace

cudaError_t ApplyGuidance(float scale, const bf16* unconditional, int64_t n, bf16* velocity, double* scratch,
                          cudaStream_t stream) {
  const float rounded = RoundToBf16(scale);
  GuidanceNormsKernel<<<kNormBlocks, kThreads, 0, stream>>>(rounded, unconditional, velocity, n, scratch);
  GuidanceKernel<<<Blocks(n), kThreads, 0, stream>>>(rounded, unconditional, velocity, n, scratch);
  return cudaGetLastError();
}

cudaError_t EulerStep(const bf16* velocity, const StepScalars* scalars, int64_t n, bf16* latents,
                      cudaStream_t stream) {
  EulerKernel<<<Blocks(n), kThreads, 0, stream>>>(velocity, scalars, n, latents);
  return cudaGetLastError();
}

cudaError_t MultistepStep(const bf16* velocity, const StepScalars* scalars, int64_t n, float* clean,
                          bf16* latents, cudaStream_t stream) {
  MultistepKernel<<<Blocks(n), kThreads, 0, stream>>>(velocity, scalars, n, clean, latents);
  return cudaGetLastError();
}

cudaError_t EstimateClean(const bf16* latents, const bf16* velocity, float t, int64_t n, float* clean,
                          cudaStream_t stream) {
  EstimateKernel<<<Blocks(n), kThreads, 0, stream>>>(latents, velocity, t, n, clean);
  return cudaGetLastError();
}

cudaError_t Argmax(const bf16* logits, int64_t rows, int64_t vocabulary, int64_t limit, ArgmaxPair* scratch,
                   int32_t* ids, cudaStream_t stream, float* values) {
  if (rows == 0) return cudaSuccess;
  ArgmaxPartKernel<<<dim3(kArgmaxBlocks, static_cast<unsigned>(rows)), kThreads, 0, stream>>>(
      logits, vocabulary, limit, scratch);
  ArgmaxKernel<<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(scratch, ids, values);
  return cudaGetLastError();
}

}  // namespace lancet::cuda
