#include "kernels/cuda/device/bf16_math.cuh"
#include "kernels/cuda/device/programmatic_launch.cuh"
#include "kernels/cuda/device/reduce.cuh"
#include "kernels/cuda/device/shared_sums.cuh"
#include "kernels/cuda/peer_ops.h"

namespace lancet::cuda {
namespace {

using device::Vec8;

constexpr int kThreads = 256;
constexpr int kVec = 8;
static_assert(kMaxNormedCols == kThreads * kVec);  // a thread holds one piece of the row
// Enough loads in flight for the links between devices.
constexpr int kBlocksPerMultiprocessor = 8;
// Of a rank that shares its device.
constexpr int kFewBlocks = 8;
// Looks at a peer's word between looks at the host's: those go over the bus.
constexpr int kLooks = 1024;

__device__ __forceinline__ void StoreRelease(uint32_t* to, uint32_t value) {
  asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(to), "r"(value) : "memory");
}
__device__ __forceinline__ uint32_t LoadAcquire(const uint32_t* from) {
  uint32_t value;
  asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
  return value;
}

// Every thread of every block calls it. False if the wait was abandoned.
__device__ __forceinline__ bool Meet(const PeerSync& sync, uint32_t meeting) {
  bool here = true;
  if (static_cast<int>(threadIdx.x) < sync.ranks) {
    const int peer = static_cast<int>(threadIdx.x);
    if (blockIdx.x == 0) {
      __threadfence_system();
      StoreRelease(&sync.words[peer]->arrived[sync.rank * kArrivalStride], meeting);
    }
    const uint32_t* word = &sync.words[sync.rank]->arrived[peer * kArrivalStride];
    // A peer may already be one meeting further.
    for (int looks = 1; static_cast<int32_t>(LoadAcquire(word) - meeting) < 0; ++looks) {
      if (looks % kLooks == 0 && *static_cast<const volatile uint32_t*>(sync.abandoned) != 0) {
        here = false;
        break;
      }
    }
  }
  return __syncthreads_and(here) != 0;
}

__device__ __forceinline__ uint32_t NextMeeting(const PeerSync& sync) {
  return *static_cast<volatile uint32_t*>(&sync.words[sync.rank]->meetings) + 1;
}

// Every block calls it at its end; the last one counts the meeting.
__device__ __forceinline__ void Leave(const PeerSync& sync, uint32_t meeting) {
  if (threadIdx.x != 0) return;
  PeerWords* words = sync.words[sync.rank];
  if (atomicAdd(&words->tickets, 1u) == gridDim.x - 1) {
    words->tickets = 0;
    words->meetings = meeting;
  }
}

__device__ __forceinline__ void AddBf16(const uint4& raw, float (&sum)[kVec]) {
  sum[0] += device::LowHalf(raw.x);
  sum[1] += device::HighHalf(raw.x);
  sum[2] += device::LowHalf(raw.y);
  sum[3] += device::HighHalf(raw.y);
  sum[4] += device::LowHalf(raw.z);
  sum[5] += device::HighHalf(raw.z);
  sum[6] += device::LowHalf(raw.w);
  sum[7] += device::HighHalf(raw.w);
}
__device__ __forceinline__ void AddF32(const uint4& low, const uint4& high, float (&sum)[kVec]) {
  sum[0] += __uint_as_float(low.x);
  sum[1] += __uint_as_float(low.y);
  sum[2] += __uint_as_float(low.z);
  sum[3] += __uint_as_float(low.w);
  sum[4] += __uint_as_float(high.x);
  sum[5] += __uint_as_float(high.y);
  sum[6] += __uint_as_float(high.z);
  sum[7] += __uint_as_float(high.w);
}

// Adds eight values of every rank. Past the first-level cache: it may hold what a peer wrote there before.
template <int kRanks>
__device__ __forceinline__ void AddPartials(const SumRowsArgs& p, int64_t value, float (&sum)[kVec]) {
  const auto at = [&](int rank, int64_t offset) {
    const char* from = static_cast<const char*>(p.partials[rank]) + value * (p.is_f32 ? 4 : 2) + offset;
    return __ldcg(reinterpret_cast<const uint4*>(from));
  };
  if constexpr (kRanks > 0) {
    // All loads are issued before the first sum.
    uint4 low[kRanks];
    uint4 high[kRanks];
#pragma unroll
    for (int rank = 0; rank < kRanks; ++rank) {
      low[rank] = at(rank, 0);
      high[rank] = p.is_f32 ? at(rank, 16) : make_uint4(0, 0, 0, 0);
    }
#pragma unroll
    for (int rank = 0; rank < kRanks; ++rank) {
      if (p.is_f32) {
        AddF32(low[rank], high[rank], sum);
      } else {
        AddBf16(low[rank], sum);
      }
    }
  } else {
    for (int rank = 0; rank < p.ranks; ++rank) {
      if (p.is_f32) {
        AddF32(at(rank, 0), at(rank, 16), sum);
      } else {
        AddBf16(at(rank, 0), sum);
      }
    }
  }
}

// What x becomes, from `value` on.
template <int kRanks>
__device__ __forceinline__ Vec8 AddEight(const SumRowsArgs& p, int64_t value) {
  Vec8 x = device::Load8(p.x + value);
  float sum[kVec] = {};
  AddPartials<kRanks>(p, value, sum);
#pragma unroll
  for (int i = 0; i < kVec; ++i) x.v[i] = device::Round(x.v[i] + device::Round(sum[i]));
  device::Store8(p.x + value, x);
  if (p.copy != nullptr) device::Store8(p.copy + value, x);
  return x;
}

template <int kRanks, bool kMeet, bool kNorm>
__global__ void __launch_bounds__(kThreads) SumRowsKernel(SumRowsArgs p, PeerSync sync) {
  // Taken in turn, so that one barrier a row is enough.
  __shared__ float squares[2][kThreads / 32];
  if (!sync.shares_device) device::LetKernelAfterStart();
  device::WaitForKernelBefore();
  uint32_t meeting = 0;
  bool whole = true;
  if constexpr (kMeet) {
    meeting = NextMeeting(sync);
    whole = Meet(sync, meeting);
  }
  int turn = 0;
  for (int64_t row = whole ? p.begin + blockIdx.x : p.end; row < p.end; row += gridDim.x) {
    if constexpr (!kNorm) {
      for (int64_t col = threadIdx.x * kVec; col < p.cols; col += kThreads * kVec) {
        AddEight<kRanks>(p, row * p.cols + col);
      }
    } else {
      const int64_t col = threadIdx.x * kVec;
      const bool inside = col < p.cols;
      Vec8 x{};
      if (inside) x = AddEight<kRanks>(p, row * p.cols + col);
      float sum = 0.0f;
#pragma unroll
      for (int i = 0; i < kVec; ++i) sum = fmaf(x.v[i], x.v[i], sum);
      sum = device::BlockSum<kThreads>(sum, squares[turn]);
      turn ^= 1;
      if (!inside) continue;
      const float inverse = 1.0f / sqrtf(sum / static_cast<float>(p.cols) + p.norm.eps);
      const bf16* weights = row < p.norm.second_begin ? p.norm.first : p.norm.second;
      const Vec8 w = device::Load8(weights + col);
#pragma unroll
      for (int i = 0; i < kVec; ++i) x.v[i] = device::Round(x.v[i] * inverse) * w.v[i];
      device::Store8(p.norm.y + row * p.cols + col, x);
    }
  }
  if constexpr (kMeet) Leave(sync, meeting);
}

// A thread has two values.
__global__ void __launch_bounds__(kThreads) AddSharedKernel(AddSharedArgs p, PeerSync sync) {
  if (!sync.shares_device) device::LetKernelAfterStart();
  device::WaitForKernelBefore();
  const uint32_t tag = NextMeeting(sync);
  const int64_t value = (blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x) * 2;
  if (value < p.rows * p.cols) {
    bool whole = true;
    float low = 0.0f;
    float high = 0.0f;
    for (int rank = 0; rank < p.ranks; ++rank) {
      uint4 got = device::LoadTagged(p.inboxes[rank] + value);
      for (int looks = 1; whole && (got.y != tag || got.w != tag); ++looks) {
        if (looks % kLooks == 0 && *static_cast<const volatile uint32_t*>(sync.abandoned) != 0) whole = false;
        got = device::LoadTagged(p.inboxes[rank] + value);
      }
      low += __uint_as_float(got.x);
      high += __uint_as_float(got.z);
    }
    uint32_t* const to = reinterpret_cast<uint32_t*>(p.x + value);
    const uint32_t x = *to;
    if (whole) {
      *to = device::PackPair(device::LowHalf(x) + device::Round(low),
                             device::HighHalf(x) + device::Round(high));
    }
  }
  __syncthreads();
  Leave(sync, tag);
}

__global__ void __launch_bounds__(kThreads) GatherKernel(GatherArgs p, PeerSync sync) {
  const uint32_t meeting = NextMeeting(sync);
  if (Meet(sync, meeting)) {
    for (int rank = 0; rank < sync.ranks; ++rank) {
      const uint4* from = static_cast<const uint4*>(p.from[rank]);
      uint4* to = static_cast<uint4*>(p.to[rank]);
      const int64_t count = p.bytes[rank] / 16;
      for (int64_t i = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x; i < count;
           i += static_cast<int64_t>(gridDim.x) * kThreads) {
        to[i] = __ldcg(from + i);
      }
    }
  }
  Leave(sync, meeting);
}

cudaError_t MostBlocks(const PeerSync* sync, int64_t* most) {
  if (sync != nullptr && sync->shares_device) {
    *most = kFewBlocks;
    return cudaSuccess;
  }
  int device = 0;
  int multiprocessors = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  }
  *most = int64_t{multiprocessors} * kBlocksPerMultiprocessor;
  return error;
}

template <int kRanks, bool kNorm>
cudaError_t LaunchSum(const SumRowsArgs& args, const PeerSync* sync, dim3 blocks, cudaStream_t stream) {
  const LaunchShape shape = {blocks, dim3(kThreads)};
  return sync != nullptr ? LaunchKernel(SumRowsKernel<kRanks, true, kNorm>, shape, stream, args, *sync)
                         : LaunchKernel(SumRowsKernel<kRanks, false, kNorm>, shape, stream, args, PeerSync{});
}

template <bool kNorm>
cudaError_t DispatchSum(const SumRowsArgs& args, const PeerSync* sync, dim3 blocks, cudaStream_t stream) {
  switch (args.ranks) {
    case 2:
      return LaunchSum<2, kNorm>(args, sync, blocks, stream);
    case 4:
      return LaunchSum<4, kNorm>(args, sync, blocks, stream);
    case 8:
      return LaunchSum<8, kNorm>(args, sync, blocks, stream);
    default:
      return LaunchSum<0, kNorm>(args, sync, blocks, stream);
  }
}

}  // namespace

cudaError_t SumRows(const SumRowsArgs& args, const PeerSync* sync, cudaStream_t stream) {
  if (args.ranks < 1 || args.ranks > kMaxPeers || args.cols % kVec != 0 ||
      (args.norm.y != nullptr && args.cols > kMaxNormedCols) ||
      (sync != nullptr && (sync->ranks != args.ranks || sync->rank < 0 || sync->rank >= sync->ranks))) {
    return cudaErrorInvalidValue;
  }
  int64_t most = 0;
  if (const cudaError_t error = MostBlocks(sync, &most); error != cudaSuccess) return error;
  const int64_t rows = args.end - args.begin;
  // Without rows too: the peers count on the meeting.
  if (rows <= 0 && sync == nullptr) return cudaSuccess;
  const int64_t wanted = rows < 1 ? 1 : rows;
  const dim3 blocks(static_cast<unsigned>(wanted < most ? wanted : most));
  return args.norm.y != nullptr ? DispatchSum<true>(args, sync, blocks, stream)
                                : DispatchSum<false>(args, sync, blocks, stream);
}

cudaError_t AddShared(const AddSharedArgs& args, const PeerSync& sync, cudaStream_t stream) {
  if (args.ranks < 1 || args.ranks > kMaxPeers || args.cols % kVec != 0 || args.rows < 1 ||
      sync.ranks != args.ranks) {
    return cudaErrorInvalidValue;
  }
  const int64_t pairs = args.rows * args.cols / 2;
  const LaunchShape shape = {dim3(static_cast<unsigned>((pairs + kThreads - 1) / kThreads)), dim3(kThreads)};
  return LaunchKernel(AddSharedKernel, shape, stream, args, sync);
}

cudaError_t Gather(const GatherArgs& args, const PeerSync& sync, cudaStream_t stream) {
  if (sync.ranks < 1 || sync.ranks > kMaxPeers || sync.rank < 0 || sync.rank >= sync.ranks) {
    return cudaErrorInvalidValue;
  }
  int64_t most = 0;
  if (const cudaError_t error = MostBlocks(&sync, &most); error != cudaSuccess) return error;
  int64_t largest = 0;
  for (int rank = 0; rank < sync.ranks; ++rank) {
    if (args.bytes[rank] % 16 != 0) return cudaErrorInvalidValue;
    largest = args.bytes[rank] > largest ? args.bytes[rank] : largest;
  }
  int64_t wanted = (largest / 16 + kThreads - 1) / kThreads;
  if (wanted < 1) wanted = 1;
  GatherKernel<<<static_cast<unsigned>(wanted < most ? wanted : most), kThreads, 0, stream>>>(args, sync);
  return cudaGetLastError();
}

}  // namespace lancet::cuda
