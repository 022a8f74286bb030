// Device code that products of few rows share: weights on their way through shared memory into tensor-core
// products, and what becomes of the sums.
#pragma once

#include "kernels/cuda/device/bf16_math.cuh"
#include "kernels/cuda/device/mma.cuh"
#include "kernels/cuda/device/shared_sums.cuh"
#include "kernels/cuda/few_rows_linear.h"

namespace lancet::cuda {

// The four pairs of codes of a word, expanded and scaled.
__device__ __forceinline__ void ExpandWord(uint32_t word, uint32_t scale, uint32_t (&pair)[4]) {
  constexpr uint32_t kMask = 0x81c081c0u;
  pair[0] = device::MulPair(word & kMask, scale);
  pair[1] = device::MulPair((word << 3) & kMask, scale);
  pair[2] = device::MulPair((word << 6) & kMask, scale);
  const uint32_t last =
      ((word << 1) & 0x80008000u) | ((word >> 5) & 0x01000100u) | ((word >> 4) & 0x00c000c0u);
  pair[3] = device::MulPair(last, scale);
}

// Weights come in pieces of 16 outputs x 64 columns. A warp copies pieces into shared memory ahead of their
// use; a lane reads back what it copied itself, so that nobody waits for anybody.

__device__ __forceinline__ void CopyPart16(uint8_t* shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(device::SharedAddress(shared)), "l"(global)
               : "memory");
}
// Zeros instead unless `inside`; nothing is read then.
__device__ __forceinline__ void CopyPart16OrZeros(uint8_t* shared, const void* global, bool inside) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(device::SharedAddress(shared)),
               "l"(global), "r"(inside ? 16 : 0)
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
  // Rows beyond the last are read as row 0; their sums go nowhere. Columns beyond the last are zeros.
  __device__ __forceinline__ void Copy(int64_t panel, int64_t group, uint8_t* piece) const {
    const int lane = threadIdx.x % 32;
    const int64_t low = panel * kPanelRows + lane / 4;
    const int64_t col = group * kPanelCols + lane % 4 * 8;
    const bf16* from_low = weights + (low < rows ? low : 0) * cols + col;
    const bf16* from_high = weights + (low + 8 < rows ? low + 8 : 0) * cols + col;
    // A copy has eight columns, and cols is a multiple of 16.
    const bool first = col < cols;
    const bool second = col + 32 < cols;
    CopyPart16OrZeros(piece + lane * 16, first ? from_low : weights, first);
    CopyPart16OrZeros(piece + 512 + lane * 16, second ? from_low + 32 : weights, second);
    CopyPart16OrZeros(piece + 1024 + lane * 16, first ? from_high : weights, first);
    CopyPart16OrZeros(piece + 1536 + lane * 16, second ? from_high + 32 : weights, second);
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

// A warp's pieces in the order of their use: of every panel_step-th panel, every group_step-th group of
// columns.
template <typename Source, int kAhead>
class PieceReader {
 public:
  struct Range {
    int64_t first_panel, panel_step, panels;
    int first_group, group_step, groups;  // up to groups
  };

  // ring: of this warp, kAhead pieces.
  __device__ __forceinline__ PieceReader(const FewRowsArgs& p, uint8_t* ring, const Range& range)
      : source_(p),
        ring_(ring),
        range_(range),
        next_panel_(range.first_panel),
        next_group_(range.first_group) {
#pragma unroll
    for (int i = 0; i < kAhead; ++i) Copy(i);
  }

  // Adds the product over all groups of the next panel to `sums`, this lane's four elements.
  //   x: this lane's activations of group 0, or null if it has no token
  __device__ __forceinline__ void Multiply(const bf16* x, float (&sums)[4]) {
    for (int group = range_.first_group; group < range_.groups; group += range_.group_step) {
      WaitForParts<kAhead - 1>();
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
      Copy(slot_);
      slot_ = slot_ + 1 == kAhead ? 0 : slot_ + 1;
    }
  }

 private:
  __device__ __forceinline__ void Copy(int slot) {
    if (next_panel_ < range_.panels && next_group_ < range_.groups) {
      source_.Copy(next_panel_, next_group_, ring_ + slot * Source::kPieceBytes);
    }
    device::CommitCopies();
    next_group_ += range_.group_step;
    if (next_group_ >= range_.groups) {
      next_group_ = range_.first_group;
      next_panel_ += range_.panel_step;
    }
  }

  Source source_;
  uint8_t* ring_;
  Range range_;
  int64_t next_panel_;
  int next_group_;
  int slot_ = 0;
};

// A partial sum, to this rank's memory or every rank's.
__device__ __forceinline__ void StoreSum(const FewRowsArgs& p, int64_t at, float sum) {
  if (p.shared.ranks == 0) {
    p.y_f32[at] = sum;
    return;
  }
  const uint32_t tag = device::LoadVolatile(p.shared.sums) + 1;
  for (int rank = 0; rank < p.shared.ranks; ++rank)
    device::StoreTagged(p.shared.inboxes[rank] + at, sum, tag);
}

// What becomes of the sums of element `at` of a panel: token at % 8 of row at / 8, for all 128 of them.
// total(i) is the sum of element i; for kSiluMul the first eight rows are gate, the others up.
template <FewRowsOutput kOutput, typename Total>
__device__ __forceinline__ void Finish(const FewRowsArgs& p, int64_t panel, int at, Total total) {
  const int token = at % 8;
  if (token >= p.tokens) return;
  if constexpr (kOutput == FewRowsOutput::kSiluMul) {
    if (at >= 64) return;
    const float gate = device::Round(total(at));
    const float up = device::Round(total(at + 64));
    p.y[token * p.y_stride + panel * kGateUpTurn + at / 8] =
        device::Narrow(device::Round(device::SiluOf(gate)) * up);
  } else {
    const int64_t row = panel * kPanelRows + at / 8;
    if (row >= p.rows) return;
    float sum = total(at);
    const int64_t to = token * p.y_stride + row;
    if constexpr (kOutput == FewRowsOutput::kBf16) {
      if (p.bias != nullptr) sum += device::Widen(p.bias[row]);
      p.y[to] = device::Narrow(sum);
    } else if constexpr (kOutput == FewRowsOutput::kResidual) {
      p.y[to] = device::Narrow(device::Widen(p.y[to]) + device::Round(sum));
    } else {
      StoreSum(p, to, sum);
    }
  }
}

// Rows longer than this are shared by many warps.
inline constexpr int64_t kShortRowCols = 4096;

}  // namespace lancet::cuda
