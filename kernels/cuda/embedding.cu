#include "kernels/cuda/device/bf16_math.cuh"
#include "kernels/cuda/embedding.h"

namespace lancet::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void GatherKernel(const bf16* __restrict__ table, const int32_t* __restrict__ ids, int64_t cols,
                             bf16* out) {
  const int64_t row = blockIdx.x;
  const uint4* from = reinterpret_cast<const uint4*>(table + ids[row] * cols);
  uint4* to = reinterpret_cast<uint4*>(out + row * cols);
  for (int64_t i = threadIdx.x; i < cols / 8; i += kThreads) to[i] = from[i];
}

__global__ void TimeAndPositionKernel(const bf16* __restrict__ times, const int32_t* __restrict__ step,
                                      PositionTable table, int64_t latent_width, int64_t cols, bf16* x) {
  const bf16* time = times + *step * cols;
  const int64_t latent = blockIdx.x;
  const int64_t index = latent / latent_width * table.side + latent % latent_width;
  const int64_t t = index / (table.side * table.side);
  const int64_t h = index / table.side % table.side;
  const int64_t w = index % table.side;
  const int64_t w_cols = cols - 2 * table.th_cols;
  for (int64_t c = threadIdx.x; c < cols; c += kThreads) {
    bf16 position;
    if (c < table.th_cols) {
      position = table.by_position[t * table.th_cols + c];
    } else if (c < 2 * table.th_cols) {
      position = table.by_position[h * table.th_cols + c - table.th_cols];
    } else {
      position = table.by_position_w[w * w_cols + c - 2 * table.th_cols];
    }
    bf16& value = x[latent * cols + c];
    const float with_time = device::Round(device::Widen(value) + device::Widen(time[c]));
    value = device::Narrow(with_time + device::Widen(position));
  }
}

}  // namespace

cudaError_t GatherRows(const bf16* table, const int32_t* ids, int64_t rows, int64_t cols, bf16* out,
                       cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  GatherKernel<<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(table, ids, cols, out);
  return cudaGetLastError();
}

cudaError_t AddTimeAndPosition(const bf16* times, const int32_t* step, const PositionTable& table,
                               int64_t latents, int64_t latent_width, int64_t cols, bf16* x,
                               cudaStream_t stream) {
  if (latents == 0) return cudaSuccess;
  TimeAndPositionKernel<<<static_cast<unsigned>(latents), kThreads, 0, stream>>>(times, step, table,
                                                                                 latent_width, cols, x);
  return cudaGetLastError();
}

}  // namespace lancet::cuda
