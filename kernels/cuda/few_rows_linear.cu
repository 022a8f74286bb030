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

// Weights come in pieces of 16 outputs x 64 columns. A warp copies pieces into shared memory ahead of their
// use; a lane reads back what it copied itself, so that nobody waits for anybody.

__device__ __forceinline__ void CopyPart16(uint8_t* shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(device::SharedAddress(shared)), "l"(global)
               : "memory");
}
__device__ __forceinline__ void CopyPart4(uint8_t* shared, const void* global) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(device::SharedAddress(shared)), "l"(global)
               : "memory");
}

// Until at most Pending groups of this lane's copies are under way. Reads of what came stay behind it.
template <int Pending>
__device__ __forceinline__ void WaitForParts() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}

struct PanelSource {
  static constexpr int kPieceBytes = 32 * (16 + 4);
  // Where a lane's sixteen columns of activations lie, in two parts of eight: the t-th block of 16.
  static constexpr int kLaneCols = 16;
  static constexpr int kSecondPart = 8;
  // Activations in shared memory: rows this many values apart more than they are long, so that the 16-byte
  // reads of a quarter warp fall into different banks.
  static constexpr int kPad = 8;

  const uint4* codes;
  const uint32_t* scales;
  int64_t groups;

  __device__ explicit PanelSource(const FewRowsArgs& p)
      : codes(p.panels.codes + threadIdx.x % 32),
        scales(p.panels.scales + threadIdx.x % 32),
        groups(PanelWeights::Groups(p.cols)) {}
  __device__ __forceinline__ void Copy(int64_t panel, int64_t group, uint8_t* piece) const {
    const int lane = threadIdx.x % 32;
    const int64_t at = (panel * groups + group) * 32;
    CopyPart16(piece + lane * 16, codes + at);
    CopyPart4(piece + 512 + lane * 4, scales + at);
  }
  // A fragments of the four products over 64 columns.
  static __device__ __forceinline__ void Expand(const uint8_t* piece, uint32_t (&a)[4][4]) {
    const int lane = threadIdx.x % 32;
    const uint4 codes = *reinterpret_cast<const uint4*>(piece + lane * 16);
    const uint32_t scales = *reinterpret_cast<const uint32_t*>(piece + 512 + lane * 4);
    const uint32_t low = __byte_perm(scales, 0, 0x1010);
    const uint32_t high = __byte_perm(scales, 0, 0x3232);
    uint32_t pairs[4][4];
    ExpandWord(codes.x, low, pairs[0]);
    ExpandWord(codes.y, low, pairs[1]);
    ExpandWord(codes.z, high, pairs[2]);
    ExpandWord(codes.w, high, pairs[3]);
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
  static constexpr int kPieceBytes = 32 * 64;
  // Eight columns of either half of the 64: whole sectors are read at a time.
  static constexpr int kLaneCols = 8;
  static constexpr int kSecondPart = 32;
  static constexpr int kPad = 32;

  const bf16* weights;
  int64_t rows;
  int64_t cols;

  __device__ explicit DenseSource(const FewRowsArgs& p) : weights(p.dense), rows(p.rows), cols(p.cols) {}
  // Rows beyond the last are read as row 0; their sums go nowhere.
  __device__ __forceinline__ void Copy(int64_t panel, int64_t group, uint8_t* piece) const {
    const int lane = threadIdx.x % 32;
    const int64_t low = panel * kPanelRows + lane / 4;
    const int64_t col = group * kPanelCols + lane % 4 * 8;
    const bf16* from_low = weights + (low < rows ? low : 0) * cols + col;
    const bf16* from_high = weights + (low + 8 < rows ? low + 8 : 0) * cols + col;
    CopyPart16(piece + lane * 16, from_low);
    CopyPart16(piece + 512 + lane * 16, from_low + 32);
    CopyPart16(piece + 1024 + lane * 16, from_high);
    CopyPart16(piece + 1536 + lane * 16, from_high + 32);
  }
  static __device__ __forceinline__ void Expand(const uint8_t* piece, uint32_t (&a)[4][4]) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      const uint4 low = *reinterpret_cast<const uint4*>(piece + part * 512 + lane * 16);
      const uint4 high = *reinterpret_cast<const uint4*>(piece + 1024 + part * 512 + lane * 16);
      a[2 * part][0] = low.x;
      a[2 * part][1] = high.x;
      a[2 * part][2] = low.y;
      a[2 * part][3] = high.y;
      a[2 * part + 1][0] = low.z;
      a[2 * part + 1][1] = high.z;
      a[2 * part + 1][2] = low.w;
      a[2 * part + 1][3] = high.w;
    }
  }
};

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
// Rows longer than this are shared by 16 warps, others by 8: each has a few groups of columns, and no more.
constexpr int64_t kShortRowCols = 4096;

// A warp's pieces in the order of their use: of every gridDim-th panel, every kWarps-th group of columns. All
// warps count the same number of steps; those beyond the last group are empty.
template <typename Source, int kWarps, int kAhead>
class PieceReader {
 public:
  __device__ __forceinline__ PieceReader(const FewRowsArgs& p, uint8_t* shared)
      : source_(p),
        ring_(shared + threadIdx.x / 32 * kAhead * Source::kPieceBytes),
        panels_(PanelWeights::Panels(p.rows)),
        groups_(static_cast<int>(PanelWeights::Groups(p.cols))),
        next_panel_(blockIdx.x),
        next_group_(static_cast<int>(threadIdx.x / 32)) {
#pragma unroll
    for (int i = 0; i < kAhead; ++i) Copy(i);
  }

  // Adds the product over all of this warp's groups of the next panel to `sums`, this lane's four elements.
  //   x: this lane's activations of group 0, or null if it has no token
  __device__ __forceinline__ void Multiply(const bf16* x, float (&sums)[4]) {
    for (int group = static_cast<int>(threadIdx.x / 32); group < groups_ + static_cast<int>(threadIdx.x / 32);
         group += kWarps) {
      WaitForParts<kAhead - 1>();
      if (group < groups_) {
        uint4 x0 = make_uint4(0, 0, 0, 0);
        uint4 x1 = x0;
        if (x != nullptr) {
          const bf16* from = x + group * kPanelCols;
          x0 = *reinterpret_cast<const uint4*>(from);
          x1 = *reinterpret_cast<const uint4*>(from + Source::kSecondPart);
        }
        uint32_t a[4][4];
        Source::Expand(ring_ + slot_ * Source::kPieceBytes, a);
        device::MmaBf16(sums, a[0], x0.x, x0.y);
        device::MmaBf16(sums, a[1], x0.z, x0.w);
        device::MmaBf16(sums, a[2], x1.x, x1.y);
        device::MmaBf16(sums, a[3], x1.z, x1.w);
      }
      Copy(slot_);
      slot_ = slot_ + 1 == kAhead ? 0 : slot_ + 1;
    }
  }

 private:
  __device__ __forceinline__ void Copy(int slot) {
    if (next_panel_ < panels_ && next_group_ < groups_) {
      source_.Copy(next_panel_, next_group_, ring_ + slot * Source::kPieceBytes);
    }
    device::CommitCopies();
    next_group_ += kWarps;
    if (next_group_ >= groups_ + static_cast<int>(threadIdx.x / 32)) {
      next_group_ = static_cast<int>(threadIdx.x / 32);
      next_panel_ += gridDim.x;
    }
  }

  Source source_;
  uint8_t* ring_;
  int64_t panels_;
  int groups_;
  int64_t next_panel_;
  int next_group_;
  int slot_ = 0;
};

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
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  PieceReader<Source, kWarps, kAhead> reader(p, shared);
  // The kernel after may start its own first copies; those above touch weights only, what follows reads what
  // the kernel before wrote.
  device::LetKernelAfterStart();
  device::WaitForKernelBefore();
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
    const auto total = [&](int at) {
      float sum = 0.0f;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) sum += partial[parity][w][at];
      return sum * p.panels.scale_up;
    };
    const int token = threadIdx.x % 8;
    if constexpr (kOutput == FewRowsOutput::kSiluMul) {
      // Gate in the first eight rows, up in the others.
      if (threadIdx.x < 64 && token < p.tokens) {
        const float gate = device::Round(total(threadIdx.x));
        const float up = device::Round(total(threadIdx.x + 64));
        p.y[token * p.y_stride + panel * 8 + threadIdx.x / 8] =
            device::Narrow(device::Round(device::SiluOf(gate)) * up);
      }
    } else {
      // Thread i < 128 has output row i / 8 of the panel, token i % 8.
      const int64_t row = panel * kPanelRows + threadIdx.x / 8;
      if (threadIdx.x < kPanelRows * 8 && token < p.tokens && row < p.rows) {
        float sum = total(threadIdx.x);
        const int64_t at = token * p.y_stride + row;
        if constexpr (kOutput == FewRowsOutput::kBf16) {
          if (p.bias != nullptr) sum += device::Widen(p.bias[row]);
          p.y[at] = device::Narrow(sum);
        } else if constexpr (kOutput == FewRowsOutput::kResidual) {
          p.y[at] = device::Narrow(device::Widen(p.y[at]) + device::Round(sum));
        } else {
          p.y_f32[at] = sum;
        }
      }
    }
    parity ^= 1;
  }
}

template <typename Source, int kWarps, int kAhead, FewRowsOutput kOutput>
cudaError_t Launch(const FewRowsArgs& args, cudaStream_t stream) {
  const auto kernel = FewRowsKernel<Source, kWarps, kAhead, kOutput>;
  const int64_t stride = PanelWeights::Groups(args.cols) * kPanelCols + Source::kPad;
  const size_t shared_bytes = static_cast<size_t>(args.tokens) * stride * sizeof(bf16) +
                              size_t{kWarps} * kAhead * Source::kPieceBytes;
  cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           static_cast<int>(shared_bytes));
  if (error != cudaSuccess) return error;
  int device = 0;
  int multiprocessors = 0;
  error = cudaGetDevice(&device);
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  }
  if (error != cudaSuccess) return error;
  const int64_t panels = PanelWeights::Panels(args.rows);
  LaunchShape shape;
  shape.blocks = dim3(static_cast<unsigned>(panels < multiprocessors ? panels : multiprocessors));
  shape.threads = dim3(kWarps * 32);
  shape.shared_bytes = shared_bytes;
  shape.overlaps = args.overlaps;
  return LaunchKernel(kernel, shape, stream, args);
}

template <typename Source, int kWarps, int kAhead>
cudaError_t DispatchOutput(const FewRowsArgs& args, cudaStream_t stream) {
  switch (args.output) {
    case FewRowsOutput::kBf16:
      return Launch<Source, kWarps, kAhead, FewRowsOutput::kBf16>(args, stream);
    case FewRowsOutput::kResidual:
      return Launch<Source, kWarps, kAhead, FewRowsOutput::kResidual>(args, stream);
    case FewRowsOutput::kF32:
      return Launch<Source, kWarps, kAhead, FewRowsOutput::kF32>(args, stream);
    case FewRowsOutput::kSiluMul:
      return Launch<Source, kWarps, kAhead, FewRowsOutput::kSiluMul>(args, stream);
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
  const auto fits = [&](int64_t piece_bytes) {
    const int64_t row_bytes = (PanelWeights::Groups(args.cols) * kPanelCols + DenseSource::kPad) *
                              static_cast<int64_t>(sizeof(bf16));
    return args.tokens * row_bytes + piece_bytes + kStaticSharedBytes <= shared_limit;
  };
  const int64_t least_bytes = args.dense != nullptr ? 8 * kDenseAhead * DenseSource::kPieceBytes
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
    part.tokens = args.tokens - static_cast<int>(done);
    return FewRowsLinear(part, stream);
  }
  if (args.dense != nullptr) return DispatchOutput<DenseSource, 8, kDenseAhead>(args, stream);
  if (!is_long) return DispatchOutput<PanelSource, 8, kShortRowAhead>(args, stream);
  if (fits(16 * kLongRowAhead * PanelSource::kPieceBytes)) {
    return DispatchOutput<PanelSource, 16, kLongRowAhead>(args, stream);
  }
  return DispatchOutput<PanelSource, 16, kLongRowLeastAhead>(args, stream);
}

}  // namespace lancet::cuda
