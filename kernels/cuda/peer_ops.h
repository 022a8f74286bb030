// What the ranks of a group do together on their devices: they meet inside a kernel and then read each
// other's memory. Sums are formed in rank order 0, 1, ..., in f32, so every rank gets the same bytes,
// whatever else shares the launch.
//
// A meeting: each rank writes the number of the meeting into a word of every rank's memory (release, system
// scope) and waits until its own words have come that far. So after a meeting everything that earlier kernels
// of any rank's stream wrote can be read, and everything that was read before the meeting before may be
// overwritten. The number of meetings so far lies on the device, so that a captured kernel can be replayed.
// A wait ends when `abandoned` is set; results are of no use then.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "common/bf16.h"

namespace lancet::cuda {

inline constexpr int kMaxPeers = 8;
// Words that different ranks write lie this many apart: a line each.
inline constexpr int kArrivalStride = 32;

// Words of one rank's own memory, zero at the start.
struct PeerWords {
  uint32_t arrived[kMaxPeers * kArrivalStride];  // [rank * kArrivalStride]: written by that rank
  uint32_t meetings;                             // so far
  uint32_t tickets;                              // blocks of the running kernel that are done
};

struct PeerSync {
  int rank = 0;
  int ranks = 0;                  // 1 to kMaxPeers
  PeerWords* words[kMaxPeers]{};  // of every rank, as this device addresses them
  // Of the host, mapped: nonzero ends every wait.
  const uint32_t* abandoned = nullptr;
  // Several ranks share a device: leave room for the others' kernels, or nobody gets on.
  bool shares_device = false;
};

// An RMS norm of rows on their way, as RmsNorm (row_ops.h) computes it, to the bit.
struct RowNorm {
  const bf16* first = nullptr;   // [cols]: the weight of rows before second_begin
  const bf16* second = nullptr;  // [cols]: of the others
  int64_t second_begin = 0;
  float eps = 0;
  bf16* y = nullptr;  // [rows, cols]
};
// Widest row with a norm; wider ones are normalised by themselves.
inline constexpr int64_t kMaxNormedCols = 2048;

// Partial sums of rows of `cols` values, dense, f32 or bf16.
struct SumRowsArgs {
  int ranks = 0;
  const void* partials[kMaxPeers]{};  // of every rank, 16-byte aligned
  bool is_f32 = false;
  int64_t begin = 0;  // rows to do
  int64_t end = 0;
  int64_t cols = 0;      // a multiple of 8
  bf16* x = nullptr;     // [rows, cols]: x = bf16(x + bf16(sum over the ranks))
  bf16* copy = nullptr;  // if set, what x becomes is also written there, same layout
  RowNorm norm;          // if norm.y is set
};

// `sync` null: everything is there already.
cudaError_t SumRows(const SumRowsArgs& args, const PeerSync* sync, cudaStream_t stream);

// Sums of few rows whose partial sums came as tagged values (few_rows_linear.h), by ranks that wait for
// nothing else: x = bf16(x + bf16(sum over the ranks)). No meeting: inboxes are taken in turn, and who is two
// sums further has what everybody sent after reading.
struct AddSharedArgs {
  int ranks = 0;
  const uint2* inboxes[kMaxPeers]{};  // own memory, of what each rank sent: [rows, cols]
  int64_t rows = 0;
  int64_t cols = 0;  // a multiple of 8
  bf16* x = nullptr;
};
cudaError_t AddShared(const AddSharedArgs& args, const PeerSync& sync, cudaStream_t stream);

// to[r][0, bytes[r]) = from[r][0, bytes[r]) for every rank r with bytes[r] > 0, after a meeting. 16-byte
// aligned, sizes multiples of 16.
struct GatherArgs {
  const void* from[kMaxPeers]{};
  void* to[kMaxPeers]{};
  int64_t bytes[kMaxPeers]{};
};
cudaError_t Gather(const GatherArgs& args, const PeerSync& sync, cudaStream_t stream);

}  // namespace lancet::cuda
