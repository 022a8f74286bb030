// Sums and maxima over a warp or a block in a fixed order, so that a result never depends on timing.
#pragma once

namespace lancet::device {

__device__ __forceinline__ float WarpSum(float x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
  return x;
}
__device__ __forceinline__ double WarpSum(double x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
  return x;
}
__device__ __forceinline__ float WarpMax(float x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, offset));
  return x;
}

// Of all threads of a block of Threads; every thread gets it. `shared` holds Threads / 32 values and may be
// reused after the next barrier.
template <int Threads, typename T>
__device__ __forceinline__ T BlockSum(T x, T* shared) {
  x = WarpSum(x);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
  __syncthreads();
  T sum = shared[0];
#pragma unroll
  for (int warp = 1; warp < Threads / 32; ++warp) sum += shared[warp];
  return sum;
}
template <int Threads>
__device__ __forceinline__ float BlockMax(float x, float* shared) {
  x = WarpMax(x);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
  __syncthreads();
  float max = shared[0];
#pragma unroll
  for (int warp = 1; warp < Threads / 32; ++warp) max = fmaxf(max, shared[warp]);
  return max;
}

}  // namespace lancet::device
