// Long rows of weights: the blocks of a cluster share the columns, so that each needs its part of the
// activations alone; a warp has a panel. The sums of the blocks are added up in their order.

#include "kernels/cuda/device/cluster.cuh"
#include "kernels/cuda/device/programmatic_launch.cuh"
#include "kernels/cuda/few_rows_pieces.cuh"

namespace lancet::cuda {
namespace {

constexpr int kBlocks = 8;
constexpr int kWarps = 8;
constexpr int kThreads = kWarps * 32;
constexpr int kAhead = 12;
constexpr int kPad = PanelSource::kPad;

int64_t GroupsOfBlock(int64_t cols) { return (PanelWeights::Groups(cols) + kBlocks - 1) / kBlocks; }

template <FewRowsOutput kOutput>
__global__ void __launch_bounds__(kThreads, 3) FewLongRowsKernel(FewRowsArgs p, int block_groups) {
  extern __shared__ __align__(16) uint8_t shared[];
  __shared__ float partial[kWarps][kPanelRows * 8];
  bf16* staged = reinterpret_cast<bf16*>(shared + kWarps * kAhead * PanelSource::kPieceBytes);
  const int64_t panels = PanelWeights::Panels(p.rows);
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int rank = blockIdx.x % kBlocks;
  const int64_t first = blockIdx.x / kBlocks * kWarps;
  const int64_t step = gridDim.x / kBlocks * kWarps;
  const int first_group = rank * block_groups;
  const int groups = min(first_group + block_groups, static_cast<int>(PanelWeights::Groups(p.cols)));
  PieceReader<PanelSource, kAhead> reader(p, shared + warp * kAhead * PanelSource::kPieceBytes,
                                          {first + warp, step, panels, first_group, 1, groups});
  device::LetKernelAfterStart();
  device::WaitForKernelBefore();
  const int64_t first_col = static_cast<int64_t>(first_group) * kPanelCols;
  const int block_cols = block_groups * kPanelCols;
  const int stride = block_cols + kPad;
  for (int i = threadIdx.x * 8; i < p.tokens * block_cols; i += kThreads * 8) {
    const int token = i / block_cols;
    const int col = i % block_cols;
    uint4 values = make_uint4(0, 0, 0, 0);
    if (first_col + col < p.cols) {
      values = *reinterpret_cast<const uint4*>(p.x + token * p.x_stride + first_col + col);
    }
    *reinterpret_cast<uint4*>(staged + token * stride + col) = values;
  }
  __syncthreads();
  // As if the activations of all columns lay there.
  const bf16* mine = lane / 4 < p.tokens
                         ? staged + lane / 4 * stride + lane % 4 * PanelSource::kLaneCols - first_col
                         : nullptr;
  for (int64_t panel = first; panel < panels; panel += step) {
    float sums[4] = {};
    if (panel + warp < panels) reader.Multiply(mine, sums);
    float* part = partial[warp] + lane / 4 * 8 + lane % 4 * 2;
    part[0] = sums[0];
    part[1] = sums[1];
    part[64] = sums[2];
    part[65] = sums[3];
    device::SyncCluster();
    // Each block puts one of the panels together.
    if (panel + rank < panels && threadIdx.x < kPanelRows * 8) {
      Finish<kOutput>(p, panel + rank, threadIdx.x, [&](int at) {
        float sum = 0.0f;
#pragma unroll
        for (int r = 0; r < kBlocks; ++r) sum += device::LoadOfBlock(&partial[rank][at], r);
        return sum * p.panels.scale_up;
      });
    }
    // Nobody overwrites its sums, or leaves, while others read them.
    device::SyncCluster();
  }
}

template <FewRowsOutput kOutput>
cudaError_t Launch(const FewRowsArgs& args, cudaStream_t stream) {
  const int64_t block_groups = GroupsOfBlock(args.cols);
  LaunchShape shape;
  shape.shared_bytes = static_cast<size_t>(kWarps * kAhead) * PanelSource::kPieceBytes +
                       static_cast<size_t>(args.tokens * (block_groups * kPanelCols + kPad)) * sizeof(bf16);
  cudaError_t error = AllowShared(FewLongRowsKernel<kOutput>, shape.shared_bytes);
  int device = 0;
  int multiprocessors = 0;
  if (error == cudaSuccess) error = cudaGetDevice(&device);
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  }
  if (error != cudaSuccess) return error;
  const int64_t wanted = (PanelWeights::Panels(args.rows) + kWarps - 1) / kWarps;
  const int64_t room = multiprocessors / kBlocks;
  shape.blocks = dim3(static_cast<unsigned>(kBlocks * (wanted < room ? wanted : room)));
  shape.threads = dim3(kThreads);
  shape.cluster = kBlocks;
  shape.overlaps = args.overlaps;
  return LaunchKernel(FewLongRowsKernel<kOutput>, shape, stream, args, static_cast<int>(block_groups));
}

}  // namespace

cudaError_t FewLongRowsLinear(const FewRowsArgs& args, cudaStream_t stream) {
  switch (args.output) {
    case FewRowsOutput::kBf16:
      return Launch<FewRowsOutput::kBf16>(args, stream);
    case FewRowsOutput::kResidual:
      return Launch<FewRowsOutput::kResidual>(args, stream);
    case FewRowsOutput::kF32:
      return Launch<FewRowsOutput::kF32>(args, stream);
    case FewRowsOutput::kSiluMul:
      return Launch<FewRowsOutput::kSiluMul>(args, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace lancet::cuda
