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
  static constexpr int kBlocks = 3;
  const uint4* codes;
  const uint32_t* scales;

  PanelSource() = default;
  __device__ PanelSource(const FewRowsArgs& p, int64_t panel)
      : codes(p.panels.codes + panel * PanelWeights::Groups(p.cols) * 32),
        scales(p.panels.scales + panel * PanelWeights::Groups(p.cols) * 32) {}
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
  static constexpr int kBlocks = 2;
  const bf16* low;
  const bf16* high;

  DenseSource() = default;
  // Rows beyond the last are read as row 0; their sums go nowhere.
  __device__ DenseSource(const FewRowsArgs& p, int64_t panel) {
    const int64_t row = panel * kPanelRows + threadIdx.x % 32 / 4;
    low = p.dense + (row < p.rows ? row : 0) * p.cols;
    high = p.dense + (row + 8 < p.rows ? row + 8 : 0) * p.cols;
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
                                                 float (*square_sums)[kMaxFewRows]) {
  constexpr int kStep = kWarps * 32 * 8;
  const int64_t first = threadIdx.x * 8;
  const int64_t stride = staged_cols + kPad;
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

// Reads the pieces of kPanels panels ahead of their use. Each warp takes every kWarps-th group of columns.
template <typename Source, int kWarps, int kPanels>
class PanelReader {
 public:
  static constexpr int kAhead = Source::kUnroll;

  __device__ __forceinline__ explicit PanelReader(const FewRowsArgs& p)
      : groups_(PanelWeights::Groups(p.cols)) {}

  // Starts on panel `first`, and on `first + distance` if there are two.
  __device__ __forceinline__ void Start(const FewRowsArgs& p, int64_t first, int64_t distance) {
#pragma unroll
    for (int i = 0; i < kPanels; ++i) sources_[i] = Source(p, first + i * distance);
#pragma unroll
    for (int u = 0; u < kAhead; ++u) Load(u, threadIdx.x / 32 + u * kWarps);
  }

  // The product over all of this warp's groups: sums[panel] are this lane's four elements of it.
  __device__ __forceinline__ void Multiply(const FewRowsArgs& p, const bf16* staged, int64_t staged_cols,
                                           float (&sums)[kPanels][4]) {
    const int lane = threadIdx.x % 32;
    const bool has_token = lane / 4 < p.tokens;
    const bf16* mine = staged + (has_token ? lane / 4 : 0) * (staged_cols + kPad) + lane % 4 * 16;
    for (int64_t first = threadIdx.x / 32; first < groups_; first += kWarps * kAhead) {
#pragma unroll
      for (int u = 0; u < kAhead; ++u) {
        const int64_t group = first + u * kWarps;
        if (group >= groups_) break;
        uint4 x0 = make_uint4(0, 0, 0, 0);
        uint4 x1 = x0;
        if (has_token) {
          const uint4* from = reinterpret_cast<const uint4*>(mine + group * kPanelCols);
          x0 = from[0];
          x1 = from[1];
        }
        typename Source::Piece current[kPanels];
#pragma unroll
        for (int i = 0; i < kPanels; ++i) current[i] = pieces_[u][i];
        Load(u, group + kAhead * kWarps);
#pragma unroll
        for (int i = 0; i < kPanels; ++i) {
          uint32_t a[4][4];
          Source::Expand(current[i], a);
          device::MmaBf16(sums[i], a[0], x0.x, x0.y);
          device::MmaBf16(sums[i], a[1], x0.z, x0.w);
          device::MmaBf16(sums[i], a[2], x1.x, x1.y);
          device::MmaBf16(sums[i], a[3], x1.z, x1.w);
        }
      }
    }
  }

 private:
  __device__ __forceinline__ void Load(int slot, int64_t group) {
    if (group >= groups_) return;
#pragma unroll
    for (int i = 0; i < kPanels; ++i) pieces_[slot][i] = sources_[i].Load(group, threadIdx.x % 32);
  }

  int64_t groups_;
  Source sources_[kPanels];
  typename Source::Piece pieces_[kAhead][kPanels];
};

// At most, of any instance: sums of the warps, twice, and squares.
constexpr int64_t kStaticSharedBytes = 34 * 1024;

// Blocks that share a multiprocessor: enough loads in flight for its part of the bandwidth.
template <typename Source, int kWarps, FewRowsOutput kOutput>
constexpr int BlocksPerMultiprocessor() {
  if (kWarps > 8) return 1;
  if (kOutput == FewRowsOutput::kSiluMul) return (Source::kBlocks + 1) / 2;
  return Source::kBlocks;
}

// A block goes over every gridDim-th panel; loads of the next begin before the sums of one are put together.
template <typename Source, int kWarps, FewRowsOutput kOutput>
__global__ void __launch_bounds__(kWarps * 32, BlocksPerMultiprocessor<Source, kWarps, kOutput>())
    FewRowsKernel(FewRowsArgs p) {
  // An activation reads the gate's panel and the one of `up` side by side.
  constexpr int kPanels = kOutput == FewRowsOutput::kSiluMul ? 2 : 1;
  extern __shared__ __align__(16) uint8_t shared[];
  __shared__ float partial[2][kWarps][kPanels][kPanelRows * 8];
  __shared__ float square_sums[kWarps][kMaxFewRows];
  bf16* staged = reinterpret_cast<bf16*>(shared);
  const int64_t staged_cols = PanelWeights::Groups(p.cols) * kPanelCols;
  const int64_t outputs = PanelWeights::Panels(p.rows) / kPanels;
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  PanelReader<Source, kWarps, kPanels> reader(p);
  reader.Start(p, blockIdx.x, outputs);
  // The kernel after may start its own first loads; those above touch weights only, what follows reads what
  // the kernel before wrote.
  device::LetKernelAfterStart();
  device::WaitForKernelBefore();
  StageActivations<kWarps>(p, staged, staged_cols, square_sums);
  __syncthreads();
  int parity = 0;
  for (int64_t panel = blockIdx.x; panel < outputs; panel += gridDim.x) {
    float sums[kPanels][4] = {};
    reader.Multiply(p, staged, staged_cols, sums);
    if (panel + gridDim.x < outputs) reader.Start(p, panel + gridDim.x, outputs);

      // Sums over the warps, in their order. Thread i < 128 gets output row i / 8 of the panel, token i % 8.
#pragma unroll
    for (int k = 0; k < kPanels; ++k) {
      float* mine = partial[parity][warp][k] + lane / 4 * 8 + lane % 4 * 2;
      mine[0] = sums[k][0];
      mine[1] = sums[k][1];
      mine[64] = sums[k][2];
      mine[65] = sums[k][3];
    }
    // One barrier a panel: the other half of `partial` is free until everybody has passed it.
    __syncthreads();
    const int64_t row = panel * kPanelRows + threadIdx.x / 8;
    const int token = threadIdx.x % 8;
    if (threadIdx.x < kPanelRows * 8 && token < p.tokens && row < p.rows) {
      float total[kPanels] = {};
#pragma unroll
      for (int k = 0; k < kPanels; ++k) {
#pragma unroll
        for (int w = 0; w < kWarps; ++w) total[k] += partial[parity][w][k][threadIdx.x];
        total[k] *= p.panels.scale_up;
      }
      const int64_t at = token * p.y_stride + row;
      if constexpr (kOutput == FewRowsOutput::kBf16) {
        if (p.bias != nullptr) total[0] += device::Widen(p.bias[row]);
        p.y[at] = device::Narrow(total[0]);
      } else if constexpr (kOutput == FewRowsOutput::kResidual) {
        p.y[at] = device::Narrow(device::Widen(p.y[at]) + device::Round(total[0]));
      } else if constexpr (kOutput == FewRowsOutput::kF32) {
        p.y_f32[at] = total[0];
      } else {
        p.y[at] = device::Narrow(device::Round(device::SiluOf(device::Round(total[0]))) *
                                 device::Round(total[kPanels - 1]));
      }
    }
    parity ^= 1;
  }
}

template <typename Source, int kWarps, FewRowsOutput kOutput>
cudaError_t Launch(const FewRowsArgs& args, cudaStream_t stream) {
  const auto kernel = FewRowsKernel<Source, kWarps, kOutput>;
  const int64_t staged_cols = PanelWeights::Groups(args.cols) * kPanelCols;
  const size_t shared_bytes = static_cast<size_t>(args.tokens) * (staged_cols + kPad) * sizeof(bf16);
  cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           static_cast<int>(shared_bytes));
  if (error != cudaSuccess) return error;
  int64_t outputs = PanelWeights::Panels(args.rows);
  if (kOutput == FewRowsOutput::kSiluMul) outputs /= 2;
  int device = 0;
  int multiprocessors = 0;
  error = cudaGetDevice(&device);
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  }
  if (error != cudaSuccess) return error;
  const int64_t resident = int64_t{multiprocessors} * BlocksPerMultiprocessor<Source, kWarps, kOutput>();
  const dim3 blocks(static_cast<unsigned>(outputs < resident ? outputs : resident));
  return LaunchProgrammatic(kernel, blocks, dim3(kWarps * 32), shared_bytes, stream, args);
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
  // Devices with less shared memory take fewer rows at a time; a row's result is the same.
  int device = 0;
  int shared_limit = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&shared_limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  }
  if (error != cudaSuccess) return error;
  const int64_t row_bytes =
      (PanelWeights::Groups(args.cols) * kPanelCols + kPad) * static_cast<int64_t>(sizeof(bf16));
  if (args.tokens > 1 && args.tokens * row_bytes + kStaticSharedBytes > shared_limit) {
    FewRowsArgs part = args;
    part.tokens = args.tokens / 2;
    error = FewRowsLinear(part, stream);
    if (error != cudaSuccess) return error;
    const int64_t done = part.tokens;
    part.x += done * args.x_stride;
    if (part.y != nullptr) part.y += done * args.y_stride;
    if (part.y_f32 != nullptr) part.y_f32 += done * args.y_stride;
    part.tokens = args.tokens - static_cast<int>(done);
    return FewRowsLinear(part, stream);
  }
  if (args.dense != nullptr) return DispatchOutput<DenseSource, 8>(args, stream);
  // Enough warps that each has a few groups of columns, and no more.
  if (args.cols > 4096) return DispatchOutput<PanelSource, 16>(args, stream);
  return DispatchOutput<PanelSource, 8>(args, stream);
}

}  // namespace lancet::cuda
