#include <type_traits>

#include "kernels/cuda/device/bf16_math.cuh"
#include "kernels/cuda/device/reduce.cuh"
#include "kernels/cuda/device/small_formats.cuh"
#include "kernels/cuda/few_rows_linear.h"
#include "kernels/cuda/row_ops.h"

namespace lancet::cuda {
namespace {

using device::Load8;
using device::Store8;
using device::Vec8;

constexpr int kThreads = 256;
constexpr int kVec = 8;  // values of a 16-byte load
static_assert(kVec == kGateUpTurn);

enum class Format { kBf16, kFp8, kFp4 };

__device__ __forceinline__ float MaxOf(const Vec8& x) {
  float max = 0.0f;
#pragma unroll
  for (int i = 0; i < kVec; ++i) max = fmaxf(max, fabsf(x.v[i]));
  return max;
}

__device__ __forceinline__ void StoreFp8(uint8_t* to, const Vec8& x, float inverse) {
  const uint32_t low =
      device::PackE4m3(x.v[0] * inverse, x.v[1] * inverse, x.v[2] * inverse, x.v[3] * inverse);
  const uint32_t high =
      device::PackE4m3(x.v[4] * inverse, x.v[5] * inverse, x.v[6] * inverse, x.v[7] * inverse);
  *reinterpret_cast<uint2*>(to) = make_uint2(low, high);
}

// All lanes of a warp call this together: lanes 2i and 2i + 1 hold the halves of a block of 16. Only those
// `inside` the row write.
__device__ __forceinline__ void StoreFp4(const RowOutput& y, int64_t row, int64_t col, int64_t cols,
                                         const Vec8& x, float inverse, bool inside) {
  const float mine = inside ? MaxOf(x) : 0.0f;
  const float largest = fmaxf(mine, __shfl_xor_sync(0xffffffffu, mine, 1));
  if (!inside) return;
  const uint8_t byte = device::NarrowE4m3(largest * inverse * (1.0f / 6.0f));
  const float scale = device::WidenE4m3(byte);
  const float m = scale > 0.0f ? inverse / scale : 0.0f;
  uint32_t codes = 0;
#pragma unroll
  for (int i = 0; i < kVec; i += 2) codes |= device::PackE2m1(x.v[i] * m, x.v[i + 1] * m) << (4 * i);
  *reinterpret_cast<uint32_t*>(y.fp4_codes + (row * cols + col) / 2) = codes;
  if (col % 16 != 0) return;
  const int64_t block = col / 16;
  const int64_t tile = row / 128 * ((cols / 16 + 3) / 4) + block / 4;
  y.fp4_scales[tile * 512 + row % 32 * 16 + row % 128 / 32 * 4 + block % 4] = byte;
}

// Writes a row that a block of threads holds: each thread has `Chunks` pieces of eight values (bf16 values,
// in f32), kThreads * 8 columns apart.
template <Format kFormat, int Chunks>
__device__ __forceinline__ void StoreRow(const RowOutput& y, int64_t row, int64_t cols,
                                         const Vec8 (&x)[Chunks], float* shared) {
  float inverse = 1.0f;
  if constexpr (kFormat == Format::kFp8) {
    float largest = 0.0f;
#pragma unroll
    for (int i = 0; i < Chunks; ++i) {
      if ((threadIdx.x + i * kThreads) * kVec < cols) largest = fmaxf(largest, MaxOf(x[i]));
    }
    largest = device::BlockMax<kThreads>(largest, shared);
    const float factor = largest > 0.0f ? largest / 448.0f : 1.0f;
    inverse = 1.0f / factor;
    if (threadIdx.x == 0) y.fp8_factors[row] = factor;
  }
  if constexpr (kFormat == Format::kFp4) inverse = 1.0f / *y.fp4_factor;
#pragma unroll
  for (int i = 0; i < Chunks; ++i) {
    const int64_t col = (threadIdx.x + i * kThreads) * kVec;
    const bool inside = col < cols;
    if constexpr (kFormat == Format::kBf16) {
      if (inside) Store8(y.bf16_rows + row * cols + col, x[i]);
    } else if constexpr (kFormat == Format::kFp8) {
      if (inside) StoreFp8(y.fp8_rows + row * cols + col, x[i], inverse);
    } else {
      StoreFp4(y, row, col, cols, x[i], inverse, inside);
    }
  }
}

template <Format kFormat, int Chunks>
__global__ void __launch_bounds__(kThreads)
    RmsNormKernel(const bf16* __restrict__ x, int64_t x_stride, const bf16* __restrict__ weight, float eps,
                  int64_t cols, RowOutput y) {
  __shared__ float sums[kThreads / 32];
  __shared__ float maxima[kThreads / 32];
  const int64_t row = blockIdx.x;
  Vec8 value[Chunks];
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < Chunks; ++i) {
    const int64_t col = (threadIdx.x + i * kThreads) * kVec;
    value[i] = col < cols ? Load8(x + row * x_stride + col) : Vec8{};
#pragma unroll
    for (int j = 0; j < kVec; ++j) sum = fmaf(value[i].v[j], value[i].v[j], sum);
  }
  sum = device::BlockSum<kThreads>(sum, sums);
  const float inverse = 1.0f / sqrtf(sum / static_cast<float>(cols) + eps);
#pragma unroll
  for (int i = 0; i < Chunks; ++i) {
    const int64_t col = (threadIdx.x + i * kThreads) * kVec;
    if (col >= cols) continue;
    const Vec8 w = Load8(weight + col);
#pragma unroll
    for (int j = 0; j < kVec; ++j) {
      value[i].v[j] = device::Round(device::Round(value[i].v[j] * inverse) * w.v[j]);
    }
  }
  StoreRow<kFormat>(y, row, cols, value, maxima);
}

template <Format kFormat, int Chunks>
__global__ void __launch_bounds__(kThreads)
    SiluMulKernel(const bf16* __restrict__ gate_up, int64_t cols, RowOutput y) {
  __shared__ float maxima[kThreads / 32];
  const int64_t row = blockIdx.x;
  const bf16* turns = gate_up + row * 2 * cols;
  Vec8 value[Chunks];
#pragma unroll
  for (int i = 0; i < Chunks; ++i) {
    const int64_t col = (threadIdx.x + i * kThreads) * kVec;
    value[i] = Vec8{};
    if (col >= cols) continue;
    const Vec8 g = Load8(turns + 2 * col);
    const Vec8 u = Load8(turns + 2 * col + kGateUpTurn);
#pragma unroll
    for (int j = 0; j < kVec; ++j) {
      value[i].v[j] = device::Round(device::Round(device::SiluOf(g.v[j])) * u.v[j]);
    }
  }
  StoreRow<kFormat>(y, row, cols, value, maxima);
}

template <Format kFormat, int Chunks>
__global__ void __launch_bounds__(kThreads)
    QuantiseKernel(const bf16* __restrict__ x, int64_t x_stride, int64_t cols, RowOutput y) {
  __shared__ float maxima[kThreads / 32];
  const int64_t row = blockIdx.x;
  Vec8 value[Chunks];
#pragma unroll
  for (int i = 0; i < Chunks; ++i) {
    const int64_t col = (threadIdx.x + i * kThreads) * kVec;
    value[i] = col < cols ? Load8(x + row * x_stride + col) : Vec8{};
  }
  StoreRow<kFormat>(y, row, cols, value, maxima);
}

__global__ void SiluKernel(bf16* x, int64_t n) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x;
  if (i < n) x[i] = device::Narrow(device::SiluOf(device::Widen(x[i])));
}

__global__ void AddResidualKernel(const float* __restrict__ delta, int64_t n, bf16* x) {
  const int64_t i = (blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x) * kVec;
  if (i >= n) return;
  Vec8 value = Load8(x + i);
#pragma unroll
  for (int j = 0; j < kVec; ++j) value.v[j] += device::Round(delta[i + j]);
  Store8(x + i, value);
}

__global__ void __launch_bounds__(kThreads)
    AmaxKernel(const bf16* __restrict__ x, int64_t n, float* partial) {
  __shared__ float maxima[kThreads / 32];
  float largest = 0.0f;
  for (int64_t i = (blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x) * kVec; i < n;
       i += static_cast<int64_t>(gridDim.x) * kThreads * kVec) {
    largest = fmaxf(largest, MaxOf(Load8(x + i)));
  }
  largest = device::BlockMax<kThreads>(largest, maxima);
  if (threadIdx.x == 0) partial[blockIdx.x] = largest;
}

__global__ void __launch_bounds__(kThreads) FactorKernel(const float* partial, float* factor) {
  static_assert(kThreads == kAmaxBlocks);
  __shared__ float maxima[kThreads / 32];
  const float largest = device::BlockMax<kThreads>(partial[threadIdx.x], maxima);
  if (threadIdx.x == 0) *factor = largest > 0.0f ? largest / (448.0f * 6.0f) : 1.0f;
}

// Calls launch(format, chunks) with both as compile-time constants.
template <typename Launch>
cudaError_t Dispatch(const RowOutput& y, int64_t cols, Launch launch) {
  const auto with_chunks = [&](auto format) {
    const int64_t chunks = (cols + kThreads * kVec - 1) / (kThreads * kVec);
    if (chunks <= 1) return launch(format, std::integral_constant<int, 1>{});
    if (chunks <= 4) return launch(format, std::integral_constant<int, 4>{});
    if (chunks <= 8) return launch(format, std::integral_constant<int, 8>{});
    return cudaErrorInvalidValue;
  };
  if (y.bf16_rows != nullptr) return with_chunks(std::integral_constant<Format, Format::kBf16>{});
  if (y.fp8_rows != nullptr) return with_chunks(std::integral_constant<Format, Format::kFp8>{});
  return with_chunks(std::integral_constant<Format, Format::kFp4>{});
}

}  // namespace

cudaError_t RmsNorm(const bf16* x, int64_t x_stride, const bf16* weight, float eps, int64_t rows,
                    int64_t cols, const RowOutput& y, cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  return Dispatch(y, cols, [&](auto format, auto chunks) {
    RmsNormKernel<format.value, chunks.value>
        <<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(x, x_stride, weight, eps, cols, y);
    return cudaGetLastError();
  });
}

cudaError_t SiluMul(const bf16* gate_up, int64_t rows, int64_t cols, const RowOutput& y,
                    cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  return Dispatch(y, cols, [&](auto format, auto chunks) {
    SiluMulKernel<format.value, chunks.value>
        <<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(gate_up, cols, y);
    return cudaGetLastError();
  });
}

cudaError_t QuantiseRows(const bf16* x, int64_t x_stride, int64_t rows, int64_t cols, const RowOutput& y,
                         cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  return Dispatch(y, cols, [&](auto format, auto chunks) {
    QuantiseKernel<format.value, chunks.value>
        <<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(x, x_stride, cols, y);
    return cudaGetLastError();
  });
}

cudaError_t Silu(bf16* x, int64_t n, cudaStream_t stream) {
  if (n == 0) return cudaSuccess;
  SiluKernel<<<static_cast<unsigned>((n + kThreads - 1) / kThreads), kThreads, 0, stream>>>(x, n);
  return cudaGetLastError();
}

cudaError_t AddResidual(const float* delta, int64_t n, bf16* x, cudaStream_t stream) {
  if (n == 0) return cudaSuccess;
  const int64_t vectors = n / kVec;
  AddResidualKernel<<<static_cast<unsigned>((vectors + kThreads - 1) / kThreads), kThreads, 0, stream>>>(
      delta, n, x);
  return cudaGetLastError();
}

cudaError_t Nvfp4Factor(const bf16* x, int64_t n, float* scratch, float* factor, cudaStream_t stream) {
  AmaxKernel<<<kAmaxBlocks, kThreads, 0, stream>>>(x, n, scratch);
  FactorKernel<<<1, kThreads, 0, stream>>>(scratch, factor);
  return cudaGetLastError();
}

}  // namespace lancet::cuda
