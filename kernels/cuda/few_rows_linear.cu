#include "kernels/cuda/device/bf16_math.cuh"
#include "kernels/cuda/device/mma.cuh"
#include "kernels/cuda/device/programmatic_launch.cuh"
#include "kernels/cuda/device/reduce.cuh"
#include "kernels/cuda/few_rows_linear.h"
#include "kernels/cuda/few_rows_pieces.cuh"

namespace lancet::cuda {
namespace {

using device::Vec8;

// --- Packing. ---

// The word of eight codes, even ones in the low half: see the header.
__device__ __forceinline__ uint32_t ArrangeCodes(uint32_t codes) {
  uint32_t word = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const uint32_t code = (codes >> (4 * i)) & 15u;
    const uint32_t sign = code >> 3;
    const uint32_t magnitude = code & 7u;
    uint32_t half = 0;
    switch (i / 2) {
      case 0:
        half = (sign << 15) | (magnitude << 6);
        break;
      case 1:
        half = (sign << 12) | (magnitude << 3);
        break;
      case 2:
        half = (sign << 9) | magnitude;
        break;
      default:
        half = (sign << 14) | ((magnitude & 4u) << 11) | ((magnitude & 3u) << 10);
        break;
    }
    word |= half << (i % 2 == 0 ? 0 : 16);
  }
  return word;
}

__global__ void PackPanelsKernel(const uint8_t* __restrict__ codes, const bf16* __restrict__ scales,
                                 int64_t rows, int64_t cols, float scale_factor, uint4* panel_codes,
                                 uint32_t* panel_scales) {
  const int64_t groups = PanelWeights::Groups(cols);
  const int64_t index = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (index >= PanelWeights::Lanes(rows, cols)) return;
  const int lane = static_cast<int>(index % 32);
  const int64_t group = index / 32 % groups;
  const int64_t panel = index / 32 / groups;
  const int64_t col = group * kPanelCols + lane % 4 * 16;
  uint32_t words[4] = {};
  uint32_t scale_bits = 0;
  for (int half = 0; half < 2; ++half) {
    const int64_t row = panel * kPanelRows + lane / 4 + 8 * half;
    if (row >= rows || col >= cols) continue;
    const uint2 raw = *reinterpret_cast<const uint2*>(codes + (row * cols + col) / 2);
    words[2 * half] = ArrangeCodes(raw.x);
    words[2 * half + 1] = ArrangeCodes(raw.y);
    const bf16 scale = device::Narrow(device::Widen(scales[(row * cols + col) / 16]) * scale_factor);
    scale_bits |= static_cast<uint32_t>(scale.bits) << (16 * half);
  }
  panel_codes[index] = make_uint4(words[0], words[1], words[2], words[3]);
  panel_scales[index] = scale_bits;
}

// --- The product. ---

// 1 / sqrt(mean of squares + eps) of every token, from each thread's part of the sums.
template <int kWarps>
__device__ __forceinline__ void InverseRms(const FewRowsArgs& p, float (&sums)[kMaxFewRows],
                                           float (*square_sums)[kMaxFewRows]) {
#pragma unroll
  for (int token = 0; token < kMaxFewRows; ++token) {
    if (token >= p.tokens) break;
    const float sum = device::WarpSum(sums[token]);
    if (threadIdx.x % 32 == 0) square_sums[threadIdx.x / 32][token] = sum;
  }
  __syncthreads();
#pragma unroll
  for (int token = 0; token < kMaxFewRows; ++token) {
    if (token >= p.tokens) break;
    float sum = square_sums[0][token];
#pragma unroll
    for (int warp = 1; warp < kWarps; ++warp) sum += square_sums[warp][token];
    sums[token] = 1.0f / sqrtf(sum / static_cast<float>(p.cols) + p.eps);
  }
}

__device__ __forceinline__ Vec8 Unpack(const uint4& raw) {
  return {{device::LowHalf(raw.x), device::HighHalf(raw.x), device::LowHalf(raw.y), device::HighHalf(raw.y),
           device::LowHalf(raw.z), device::HighHalf(raw.z), device::LowHalf(raw.w), device::HighHalf(raw.w)}};
}

__device__ __forceinline__ uint4 LoadRaw(const bf16* p) { return *reinterpret_cast<const uint4*>(p); }

// Copies x into shared memory, normalised if asked. All threads work on a row together, so that one row is as
// fast as eight, and a row's sum of squares is formed in the same order whatever comes with it. Loads of a
// thread are issued together: what this costs is their latency.
template <int kWarps>
__device__ __forceinline__ void StageActivations(const FewRowsArgs& p, bf16* staged, int64_t staged_cols,
                                                 int64_t stride, float (*square_sums)[kMaxFewRows]) {
  constexpr int kStep = kWarps * 32 * 8;
  const int64_t first = threadIdx.x * 8;
  if (staged_cols <= kStep) {
    // A thread has one piece of each row.
    if (first >= staged_cols && p.norm == nullptr) return;
    const bool inside = first < p.cols;
    uint4 raw[kMaxFewRows];
#pragma unroll
    for (int token = 0; token < kMaxFewRows; ++token) {
      if (token >= p.tokens) break;
      raw[token] = inside ? LoadRaw(p.x + token * p.x_stride + first) : make_uint4(0, 0, 0, 0);
    }
    float sums[kMaxFewRows] = {};
    Vec8 weight{};
    if (p.norm != nullptr) {
      if (inside) weight = device::Load8(p.norm + first);
#pragma unroll
      for (int token = 0; token < kMaxFewRows; ++token) {
        if (token >= p.tokens) break;
        const Vec8 v = Unpack(raw[token]);
#pragma unroll
        for (int j = 0; j < 8; ++j) sums[token] = fmaf(v.v[j], v.v[j], sums[token]);
      }
      InverseRms<kWarps>(p, sums, square_sums);
    }
    if (first >= staged_cols) return;
#pragma unroll
    for (int token = 0; token < kMaxFewRows; ++token) {
      if (token >= p.tokens) break;
      if (p.norm == nullptr) {
        *reinterpret_cast<uint4*>(staged + token * stride + first) = raw[token];
        continue;
      }
      Vec8 v = Unpack(raw[token]);
#pragma unroll
      for (int j = 0; j < 8; ++j) v.v[j] = device::Round(v.v[j] * sums[token]) * weight.v[j];
      device::Store8(staged + token * stride + first, v);
    }
    return;
  }
  if (p.norm == nullptr) {
    constexpr int kAtOnce = 4;
    for (int token = 0; token < p.tokens; ++token) {
      for (int64_t begin = first; begin < staged_cols; begin += kAtOnce * kStep) {
        uint4 raw[kAtOnce];
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) {
          const int64_t c = begin + i * kStep;
          raw[i] = c < p.cols ? LoadRaw(p.x + token * p.x_stride + c) : make_uint4(0, 0, 0, 0);
        }
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) {
          const int64_t c = begin + i * kStep;
          if (c < staged_cols) *reinterpret_cast<uint4*>(staged + token * stride + c) = raw[i];
        }
      }
    }
    return;
  }
  float sums[kMaxFewRows] = {};
  for (int64_t c = first; c < p.cols; c += kStep) {
#pragma unroll
    for (int token = 0; token < kMaxFewRows; ++token) {
      if (token >= p.tokens) break;
      const Vec8 v = device::Load8(p.x + token * p.x_stride + c);
#pragma unroll
      for (int j = 0; j < 8; ++j) sums[token] = fmaf(v.v[j], v.v[j], sums[token]);
    }
  }
  InverseRms<kWarps>(p, sums, square_sums);
  for (int64_t c = first; c < staged_cols; c += kStep) {
    const Vec8 w = c < p.cols ? device::Load8(p.norm + c) : Vec8{};
#pragma unroll
    for (int token = 0; token < kMaxFewRows; ++token) {
      if (token >= p.tokens) break;
      Vec8 v{};
      if (c < p.cols) v = device::Load8(p.x + token * p.x_stride + c);
#pragma unroll
      for (int j = 0; j < 8; ++j) v.v[j] = device::Round(v.v[j] * sums[token]) * w.v[j];
      device::Store8(staged + token * stride + c, v);
    }
  }
}

// Pieces that a warp has under way: together with those of the kernel after, whose copies begin before this
// one ends, enough for the bandwidth of the memory. Long rows of several tokens leave room for few.
constexpr int kDenseAhead = 8;
constexpr int kShortRowAhead = 12;
constexpr int kLongRowAhead = 8;
constexpr int kLongRowLeastAhead = 3;
// Long rows are shared by 16 warps, others by 8: each has a few groups of columns, and no more.

// Shared memory of a block beside pieces and activations, at most: sums of the warps, twice, and squares.
constexpr int64_t kStaticSharedBytes = 18 * 1024;

// A block goes over every gridDim-th panel. Blocks take less than half of a multiprocessor, so that the
// kernel after can start its own copies beside them.
template <typename Source, int kWarps, int kAhead, FewRowsOutput kOutput>
__global__ void __launch_bounds__(kWarps * 32, kWarps > 8 ? 2 : 3) FewRowsKernel(FewRowsArgs p) {
  extern __shared__ __align__(16) uint8_t shared[];
  __shared__ float partial[2][kWarps][kPanelRows * 8];
  __shared__ float square_sums[kWarps][kMaxFewRows];
  constexpr int kRing = kWarps * kAhead * Source::kPieceBytes;
  bf16* staged = reinterpret_cast<bf16*>(shared + kRing);
  const int64_t staged_cols = PanelWeights::Groups(p.cols) * kPanelCols;
  const int64_t stride = staged_cols + Source::kPad;
  const int64_t panels = PanelWeights::Panels(p.rows);
  const int groups = static_cast<int>(PanelWeights::Groups(p.cols));
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  PieceReader<Source, kAhead> reader(p, shared + warp * kAhead * Source::kPieceBytes,
                                     {blockIdx.x, gridDim.x, panels, warp, kWarps, groups});
  // The copies above touch weights only, what follows reads what the kernel before wrote. The kernel after
  // may then start its own first copies.
  if (p.overlap == LaunchOverlap::kMany) device::LetKernelAfterStart();
  device::WaitForKernelBefore();
  device::LetKernelAfterStart();
  StageActivations<kWarps>(p, staged, staged_cols, stride, square_sums);
  __syncthreads();
  const bf16* mine =
      lane / 4 < p.tokens ? staged + lane / 4 * stride + lane % 4 * Source::kLaneCols : nullptr;
  int parity = 0;
  for (int64_t panel = blockIdx.x; panel < panels; panel += gridDim.x) {
    float sums[4] = {};
    reader.Multiply(mine, sums);
    // Sums over the warps, in their order: row lane / 4 of the panel first, then row lane / 4 + 8.
    float* part = partial[parity][warp] + lane / 4 * 8 + lane % 4 * 2;
    part[0] = sums[0];
    part[1] = sums[1];
    part[64] = sums[2];
    part[65] = sums[3];
    // One barrier a panel: the other half of `partial` is free until everybody has passed it.
    __syncthreads();
    if (threadIdx.x < kPanelRows * 8) {
      Finish<kOutput>(p, panel, threadIdx.x, [&](int at) {
        float sum = 0.0f;
#pragma unroll
        for (int w = 0; w < kWarps; ++w) sum += partial[parity][w][at];
        return sum * p.panels.scale_up;
      });
    }
    parity ^= 1;
  }
}

// Many panels: each warp has its own and goes over all columns; nothing is put together afterwards.
template <int kWarps, int kAhead, FewRowsOutput kOutput>
__global__ void __launch_bounds__(kWarps * 32, 1) FewRowsWideKernel(FewRowsArgs p) {
  using Source = PanelSource;
  extern __shared__ __align__(16) uint8_t shared[];
  __shared__ float square_sums[kWarps][kMaxFewRows];
  bf16* staged = reinterpret_cast<bf16*>(shared + kWarps * kAhead * Source::kPieceBytes);
  const int64_t staged_cols = PanelWeights::Groups(p.cols) * kPanelCols;
  const int64_t stride = staged_cols + Source::kPad;
  const int64_t panels = PanelWeights::Panels(p.rows);
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  // Neighbouring panels are in different blocks: all have equally many, give or take one.
  const int64_t first = blockIdx.x + static_cast<int64_t>(gridDim.x) * warp;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kWarps;
  PieceReader<Source, kAhead> reader(
      p, shared + warp * kAhead * Source::kPieceBytes,
      {first, step, panels, 0, 1, static_cast<int>(PanelWeights::Groups(p.cols))});
  if (p.overlap == LaunchOverlap::kMany) device::LetKernelAfterStart();
  device::WaitForKernelBefore();
  device::LetKernelAfterStart();
  StageActivations<kWarps>(p, staged, staged_cols, stride, square_sums);
  __syncthreads();
  const bf16* mine =
      lane / 4 < p.tokens ? staged + lane / 4 * stride + lane % 4 * Source::kLaneCols : nullptr;
  for (int64_t panel = first; panel < panels; panel += step) {
    float sums[4] = {};
    reader.Multiply(mine, sums);
    const auto total = [&](int at) {
      return (at < 64 ? sums[at % 2] : sums[2 + at % 2]) * p.panels.scale_up;
    };
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      Finish<kOutput>(p, panel, lane / 4 * 8 + lane % 4 * 2 + i % 2 + i / 2 * 64, total);
    }
  }
}

template <typename Source, int kWarps, typename Kernel>
cudaError_t LaunchStaged(Kernel kernel, int ahead, const FewRowsArgs& args, cudaStream_t stream) {
  const int64_t stride = PanelWeights::Groups(args.cols) * kPanelCols + Source::kPad;
  LaunchShape shape;
  shape.shared_bytes = static_cast<size_t>(args.tokens) * stride * sizeof(bf16) +
                       static_cast<size_t>(kWarps * ahead) * Source::kPieceBytes;
  cudaError_t error = AllowShared(kernel, shape.shared_bytes);
  int multiprocessors = 0;
  if (error == cudaSuccess) error = Multiprocessors(&multiprocessors);
  if (error != cudaSuccess) return error;
  const int64_t panels = PanelWeights::Panels(args.rows);
  shape.blocks = dim3(static_cast<unsigned>(panels < multiprocessors ? panels : multiprocessors));
  shape.threads = dim3(kWarps * 32);
  shape.overlaps = args.overlap != LaunchOverlap::kNone;
  return LaunchKernel(kernel, shape, stream, args);
}

template <typename Source, int kWarps, int kAhead>
cudaError_t DispatchOutput(const FewRowsArgs& args, cudaStream_t stream) {
  switch (args.output) {
    case FewRowsOutput::kBf16:
      return LaunchStaged<Source, kWarps>(FewRowsKernel<Source, kWarps, kAhead, FewRowsOutput::kBf16>, kAhead,
                                          args, stream);
    case FewRowsOutput::kResidual:
      return LaunchStaged<Source, kWarps>(FewRowsKernel<Source, kWarps, kAhead, FewRowsOutput::kResidual>,
                                          kAhead, args, stream);
    case FewRowsOutput::kF32:
      return LaunchStaged<Source, kWarps>(FewRowsKernel<Source, kWarps, kAhead, FewRowsOutput::kF32>, kAhead,
                                          args, stream);
    case FewRowsOutput::kSiluMul:
      return LaunchStaged<Source, kWarps>(FewRowsKernel<Source, kWarps, kAhead, FewRowsOutput::kSiluMul>,
                                          kAhead, args, stream);
  }
  return cudaErrorInvalidValue;
}

constexpr int kWideWarps = 12;
constexpr int kWideAhead = 12;

cudaError_t DispatchWide(const FewRowsArgs& args, cudaStream_t stream) {
  const auto launch = [&](auto kernel) {
    return LaunchStaged<PanelSource, kWideWarps>(kernel, kWideAhead, args, stream);
  };
  switch (args.output) {
    case FewRowsOutput::kBf16:
      return launch(FewRowsWideKernel<kWideWarps, kWideAhead, FewRowsOutput::kBf16>);
    case FewRowsOutput::kResidual:
      return launch(FewRowsWideKernel<kWideWarps, kWideAhead, FewRowsOutput::kResidual>);
    case FewRowsOutput::kF32:
      return launch(FewRowsWideKernel<kWideWarps, kWideAhead, FewRowsOutput::kF32>);
    case FewRowsOutput::kSiluMul:
      return launch(FewRowsWideKernel<kWideWarps, kWideAhead, FewRowsOutput::kSiluMul>);
  }
  return cudaErrorInvalidValue;
}

}  // namespace

cudaError_t PackPanels(const uint8_t* codes, const bf16* scales, int64_t rows, int64_t cols,
                       float scale_factor, uint4* panel_codes, uint32_t* panel_scales, cudaStream_t stream) {
  const int64_t lanes = PanelWeights::Lanes(rows, cols);
  if (lanes == 0) return cudaSuccess;
  PackPanelsKernel<<<static_cast<unsigned>((lanes + 255) / 256), 256, 0, stream>>>(
      codes, scales, rows, cols, scale_factor, panel_codes, panel_scales);
  return cudaGetLastError();
}

cudaError_t FewRowsLinear(const FewRowsArgs& args, cudaStream_t stream) {
  if (args.tokens < 1 || args.tokens > kMaxFewRows || args.cols > kMaxFewRowsCols || args.cols % 16 != 0 ||
      (args.output == FewRowsOutput::kSiluMul && args.rows % kPanelRows != 0)) {
    return cudaErrorInvalidValue;
  }
  if (args.rows == 0) return cudaSuccess;
  // Devices with less shared memory take fewer rows at a time; a row's result is the same.
  int device = 0;
  int shared_limit = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&shared_limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  }
  if (error != cudaSuccess) return error;
  const bool is_long = args.dense == nullptr && args.cols > kShortRowCols;
  int multiprocessors = 0;
  error = Multiprocessors(&multiprocessors);
  if (error != cudaSuccess) return error;
  // A few warps a multiprocessor have work of their own.
  const bool is_wide =
      args.dense == nullptr && !is_long && PanelWeights::Panels(args.rows) >= 4 * multiprocessors;
  const auto fits = [&](int64_t piece_bytes) {
    const int64_t row_bytes = (PanelWeights::Groups(args.cols) * kPanelCols + DenseSource::kPad) *
                              static_cast<int64_t>(sizeof(bf16));
    return args.tokens * row_bytes + piece_bytes + kStaticSharedBytes <= shared_limit;
  };
  const int64_t least_bytes = args.dense != nullptr ? 8 * kDenseAhead * DenseSource::kPieceBytes
                              : is_wide             ? kWideWarps * kWideAhead * PanelSource::kPieceBytes
                              : is_long             ? 16 * kLongRowLeastAhead * PanelSource::kPieceBytes
                                                    : 8 * kShortRowAhead * PanelSource::kPieceBytes;
  if (args.tokens > 1 && !fits(least_bytes)) {
    FewRowsArgs part = args;
    part.tokens = args.tokens / 2;
    error = FewRowsLinear(part, stream);
    if (error != cudaSuccess) return error;
    const int64_t done = part.tokens;
    part.x += done * args.x_stride;
    if (part.y != nullptr) part.y += done * args.y_stride;
    if (part.y_f32 != nullptr) part.y_f32 += done * args.y_stride;
    for (int rank = 0; rank < part.shared.ranks; ++rank) part.shared.inboxes[rank] += done * args.y_stride;
    part.tokens = args.tokens - static_cast<int>(done);
    return FewRowsLinear(part, stream);
  }
  if (args.dense != nullptr) return DispatchOutput<DenseSource, 8, kDenseAhead>(args, stream);
  if (is_wide) return DispatchWide(args, stream);
  if (!is_long) return DispatchOutput<PanelSource, 8, kShortRowAhead>(args, stream);
  if (fits(16 * kLongRowAhead * PanelSource::kPieceBytes)) {
    return DispatchOutput<PanelSource, 16, kLongRowAhead>(args, stream);
  }
  return DispatchOutput<PanelSource, 16, kLongRowLeastAhead>(args, stream);
}

}  // namespace lancet::cuda
