#include "kernels/cuda/device/bf16_math.cuh"
#include "kernels/cuda/rope_table.h"

namespace lancet::cuda {
namespace {

constexpr int kThreads = 128;

__global__ void RopeTableKernel(RopeTableArgs p) {
  const int64_t index = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x;
  const int64_t row = index / p.frequencies;
  const int f = static_cast<int>(index % p.frequencies);
  if (row >= p.rows) return;
  const int32_t position = f < p.t_section ? p.t[row] : f < p.t_section + p.h_section ? p.h[row] : p.w[row];
  const float angle = __fmul_rn(static_cast<float>(position), p.inverse_frequency[f]);
  double sine;
  double cosine;
  sincos(static_cast<double>(angle), &sine, &cosine);
  p.cos[index] = device::Narrow(static_cast<float>(cosine));
  p.sin[index] = device::Narrow(static_cast<float>(sine));
}

}  // namespace

cudaError_t FillRopeTable(const RopeTableArgs& args, cudaStream_t stream) {
  const int64_t entries = args.rows * args.frequencies;
  if (entries == 0) return cudaSuccess;
  RopeTableKernel<<<static_cast<unsigned>((entries + kThreads - 1) / kThreads), kThreads, 0, stream>>>(args);
  return cudaGetLastError();
}

}  // namespace lancet::cuda
