#include "kernels/cuda/device/bf16_math.cuh"
#include "kernels/cuda/device/mma.cuh"
#include "kernels/cuda/device/programmatic_launch.cuh"
#include "kernels/cuda/device/reduce.cuh"
#include "kernels/cuda/few_rows_linear.h"

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

// bf16x2 product, rounded once per half.
__device__ __forceinline__ uint32_t MulPair(uint32_t a, uint32_t b) {
  uint32_t d;
  // a * b + (-0): exact before the one rounding, and keeps the sign of zeros.
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(0x80008000u));
  return d;
}

// The four pairs of codes of a word, expanded and scaled.
__device__ __forceinline__ void ExpandWord(uint32_t word, uint32_t scale, uint32_t (&pair)[4]) {
  constexpr uint32_t kMask = 0x81c081c0u;
  pair[0] = MulPair(word & kMask, scale);
  pair[1] = MulPair((word << 3) & kMask, scale);
  pair[2] = MulPair((word << 6) & kMask, scale);
  const uint32_t last =
      ((word << 1) & 0x80008000u) | ((word >> 5) & 0x01000100u) | ((word >> 4) & 0x00c000c0u);
  pair[3] = MulPair(last, scale);
}

// Sixteen columns of two rows, as they come from memory.
struct PanelPiece {
  uint4 codes;
  uint32_t scales;
};
struct DensePiece {
  uint4 low[2];   // row g
  uint4 high[2];  // row g + 8
};

struct PanelSource {
  using Piece = PanelPiece;
  static constexpr int kUnroll = 4;
  const uint4* codes;
  const uint32_t* scales;
  int64_t groups;

  __device__ PanelSource(const FewRowsArgs& p, int64_t panel)
      : codes(p.panels.codes + panel * PanelWeights::Groups(p.cols) * 32),
        scales(p.panels.scales + panel * PanelWeights::Groups(p.cols) * 32),
        groups(PanelWeights::Groups(p.cols)) {}
  __device__ __forceinline__ Piece Load(int64_t group, int lane) const {
    return {__ldcs(codes + group * 32 + lane), __ldcs(scales + group * 32 + lane)};
  }
  // A fragments of the four products over 64 columns.
  static __device__ __forceinline__ void Expand(const Piece& piece, uint32_t (&a)[4][4]) {
    const uint32_t low = __byte_perm(piece.scales, 0, 0x1010);
    const uint32_t high = __byte_perm(piece.scales, 0, 0x3232);
    uint32_t pairs[4][4];
    ExpandWord(piece.codes.x, low, pairs[0]);
    ExpandWord(piece.codes.y, low, pairs[1]);
    ExpandWord(piece.codes.z, high, pairs[2]);
    ExpandWord(piece.codes.w, high, pairs[3]);
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      const int word = step / 2;
      const int pair = step % 2 * 2;
      a[step][0] = pairs[word][pair];
      a[step][1] = pairs[word + 2][pair];
      a[step][2] = pairs[word][pair + 1];
      a[step][3] = pairs[word + 2][pair + 1];
    }
  }
};

struct DenseSource {
  using Piece = DensePiece;
  static constexpr int kUnroll = 2;
  const bf16* low;
  const bf16* high;
  bool has_low;
  bool has_high;
  int64_t groups;

  __device__ DenseSource(const FewRowsArgs& p, int64_t panel) : groups(p.cols / kPanelCols) {
    const int64_t row = panel * kPanelRows + threadIdx.x % 32 / 4;
    has_low = row < p.rows;
    has_high = row + 8 < p.rows;
    low = p.dense + (has_low ? row : 0) * p.cols;
    high = p.dense + (has_high ? row + 8 : 0) * p.cols;
  }
  __device__ __forceinline__ Piece Load(int64_t group, int lane) const {
    const int64_t col = group * kPanelCols + lane % 4 * 16;
    const uint4* from_low = reinterpret_cast<const uint4*>(low + col);
    const uint4* from_high = reinterpret_cast<const uint4*>(high + col);
    return {{__ldcs(from_low), __ldcs(from_low + 1)}, {__ldcs(from_high), __ldcs(from_high + 1)}};
  }
  static __device__ __forceinline__ void Expand(const Piece& piece, uint32_t (&a)[4][4]) {
    const uint32_t* low = reinterpret_cast<const uint32_t*>(piece.low);
    const uint32_t* high = reinterpret_cast<const uint32_t*>(piece.high);
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      a[step][0] = low[2 * step];
      a[step][1] = high[2 * step];
      a[step][2] = low[2 * step + 1];
      a[step][3] = high[2 * step + 1];
    }
  }
};

// Activations in shared memory: rows kPad values apart more than they are long, so that the 16-byte reads of
// a quarter warp fall into different banks.
constexpr int kPad = 8;

template <int kWarps>
__device__ void StageActivations(const FewRowsArgs& p, bf16* staged, int64_t staged_cols) {
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  for (int token = warp; token < p.tokens; token += kWarps) {
    const bf16* from = p.x + token * p.x_stride;
    bf16* to = staged + token * (staged_cols + kPad);
    float inverse = 1.0f;
    if (p.norm != nullptr) {
      float sum = 0.0f;
      for (int64_t c = lane * 8; c < p.cols; c += 256) {
        const Vec8 v = device::Load8(from + c);
#pragma unroll
        for (int j = 0; j < 8; ++j) sum = fmaf(v.v[j], v.v[j], sum);
      }
      inverse = 1.0f / sqrtf(device::WarpSum(sum) / static_cast<float>(p.cols) + p.eps);
    }
    for (int64_t c = lane * 8; c < staged_cols; c += 256) {
      Vec8 v{};
      if (c < p.cols) {
        v = device::Load8(from + c);
        if (p.norm != nullptr) {
          const Vec8 w = device::Load8(p.norm + c);
#pragma unroll
          for (int j = 0; j < 8; ++j) v.v[j] = device::Round(v.v[j] * inverse) * w.v[j];
        }
      }
      device::Store8(to + c, v);
    }
  }
}

// One panel by all warps of a block: each takes every kWarps-th group of columns. Returns this lane's four
// sums.
template <typename Source, int kWarps>
__device__ __forceinline__ void MultiplyPanel(const FewRowsArgs& p, int64_t panel, const bf16* staged,
                                              int64_t staged_cols, bool wait, float (&sum)[4]) {
  using Piece = typename Source::Piece;
  constexpr int kUnroll = Source::kUnroll;
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const Source source(p, panel);
  const bool has_token = lane / 4 < p.tokens;
  const bf16* mine = staged + (has_token ? lane / 4 : 0) * (staged_cols + kPad) + lane % 4 * 16;

  Piece next[kUnroll];
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    const int64_t group = warp + u * kWarps;
    if (group < source.groups) next[u] = source.Load(group, lane);
  }
  if (wait) {
    // The loads above touch weights only; what follows reads what the kernel before wrote.
    device::WaitForKernelBefore();
    StageActivations<kWarps>(p, const_cast<bf16*>(staged), staged_cols);
    __syncthreads();
  }
  for (int64_t first = warp; first < source.groups; first += kWarps * kUnroll) {
    Piece current[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      current[u] = next[u];
      const int64_t group = first + (u + kUnroll) * kWarps;
      if (group < source.groups) next[u] = source.Load(group, lane);
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int64_t group = first + u * kWarps;
      if (group >= source.groups) break;
      uint32_t a[4][4];
      Source::Expand(current[u], a);
      uint4 x0 = make_uint4(0, 0, 0, 0);
      uint4 x1 = x0;
      if (has_token) {
        const uint4* from = reinterpret_cast<const uint4*>(mine + group * kPanelCols);
        x0 = from[0];
        x1 = from[1];
      }
      device::MmaBf16(sum, a[0], x0.x, x0.y);
      device::MmaBf16(sum, a[1], x0.z, x0.w);
      device::MmaBf16(sum, a[2], x1.x, x1.y);
      device::MmaBf16(sum, a[3], x1.z, x1.w);
    }
  }
}

// Sums over the warps, in their order. Thread i < 128 gets output row i / 8 of the panel, token i % 8.
template <int kWarps>
__device__ __forceinline__ float FoldWarps(const float (&sum)[4], float (*partial)[kPanelRows * 8]) {
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  float* mine = partial[warp] + lane / 4 * 8 + lane % 4 * 2;
  mine[0] = sum[0];
  mine[1] = sum[1];
  mine[64] = sum[2];
  mine[65] = sum[3];
  __syncthreads();
  float total = 0.0f;
  if (threadIdx.x < kPanelRows * 8) {
#pragma unroll
    for (int w = 0; w < kWarps; ++w) total += partial[w][threadIdx.x];
  }
  __syncthreads();
  return total;
}

template <typename Source, int kWarps, FewRowsOutput kOutput>
__global__ void __launch_bounds__(kWarps * 32) FewRowsKernel(FewRowsArgs p, int panels_a_block) {
  extern __shared__ __align__(16) uint8_t shared[];
  __shared__ float partial[kWarps][kPanelRows * 8];
  bf16* staged = reinterpret_cast<bf16*>(shared);
  const int64_t staged_cols = PanelWeights::Groups(p.cols) * kPanelCols;
  const int64_t panels = PanelWeights::Panels(p.rows);
  const int64_t outputs = kOutput == FewRowsOutput::kSiluMul ? panels / 2 : panels;
  // The kernel after may start its own first loads.
  device::LetKernelAfterStart();
  for (int i = 0; i < panels_a_block; ++i) {
    const int64_t panel = blockIdx.x * static_cast<int64_t>(panels_a_block) + i;
    if (panel >= outputs) break;
    float sum[4] = {};
    MultiplyPanel<Source, kWarps>(p, panel, staged, staged_cols, i == 0, sum);
    float total = FoldWarps<kWarps>(sum, partial) * p.panels.scale_up;
    float up = 0.0f;
    if constexpr (kOutput == FewRowsOutput::kSiluMul) {
      float up_sum[4] = {};
      MultiplyPanel<Source, kWarps>(p, outputs + panel, staged, staged_cols, false, up_sum);
      up = FoldWarps<kWarps>(up_sum, partial) * p.panels.scale_up;
    }
    const int64_t row = panel * kPanelRows + threadIdx.x / 8;
    const int token = threadIdx.x % 8;
    if (threadIdx.x >= kPanelRows * 8 || token >= p.tokens || row >= p.rows) continue;
    const int64_t at = token * p.y_stride + row;
    if constexpr (kOutput == FewRowsOutput::kBf16) {
      if (p.bias != nullptr) total += device::Widen(p.bias[row]);
      p.y[at] = device::Narrow(total);
    } else if constexpr (kOutput == FewRowsOutput::kResidual) {
      p.y[at] = device::Narrow(device::Widen(p.y[at]) + device::Round(total));
    } else if constexpr (kOutput == FewRowsOutput::kF32) {
      p.y_f32[at] = total;
    } else {
      p.y[at] = device::Narrow(device::Round(device::SiluOf(device::Round(total))) * device::Round(up));
    }
  }
}

template <typename Source, int kWarps, FewRowsOutput kOutput>
cudaError_t Launch(const FewRowsArgs& args, cudaStream_t stream) {
  const auto kernel = FewRowsKernel<Source, kWarps, kOutput>;
  const int64_t staged_cols = PanelWeights::Groups(args.cols) * kPanelCols;
  const size_t shared_bytes = static_cast<size_t>(args.tokens) * (staged_cols + kPad) * sizeof(bf16);
  if (shared_bytes > 40 * 1024) {
    const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                   static_cast<int>(shared_bytes));
    if (error != cudaSuccess) return error;
  }
  int64_t outputs = PanelWeights::Panels(args.rows);
  if (kOutput == FewRowsOutput::kSiluMul) outputs /= 2;
  // Long matrices: a block stages its activations once for several panels.
  const int panels_a_block = outputs >= 4096 ? 4 : 1;
  const dim3 blocks(static_cast<unsigned>((outputs + panels_a_block - 1) / panels_a_block));
  return LaunchProgrammatic(kernel, blocks, dim3(kWarps * 32), shared_bytes, stream, args, panels_a_block);
}

template <typename Source, int kWarps>
cudaError_t DispatchOutput(const FewRowsArgs& args, cudaStream_t stream) {
  switch (args.output) {
    case FewRowsOutput::kBf16:
      return Launch<Source, kWarps, FewRowsOutput::kBf16>(args, stream);
    case FewRowsOutput::kResidual:
      return Launch<Source, kWarps, FewRowsOutput::kResidual>(args, stream);
    case FewRowsOutput::kF32:
      return Launch<Source, kWarps, FewRowsOutput::kF32>(args, stream);
    case FewRowsOutput::kSiluMul:
      return Launch<Source, kWarps, FewRowsOutput::kSiluMul>(args, stream);
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
      (args.dense != nullptr && args.cols % kPanelCols != 0) ||
      (args.output == FewRowsOutput::kSiluMul && args.rows % (2 * kPanelRows) != 0)) {
    return cudaErrorInvalidValue;
  }
  if (args.rows == 0) return cudaSuccess;
  if (args.dense != nullptr) return DispatchOutput<DenseSource, 8>(args, stream);
  // Enough warps that each has a few groups of columns, and no more.
  if (args.cols > 4096) return DispatchOutput<PanelSource, 16>(args, stream);
  return DispatchOutput<PanelSource, 8>(args, stream);
}

}  // namespace lancet::cuda
