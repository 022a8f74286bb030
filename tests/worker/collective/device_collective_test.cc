// The contract of collectives between devices, over each transport, with ranks as processes that the test
// kills and as threads that share a device. What a machine's devices cannot do is skipped, with the reason.
#include "worker/collective/device/device_collective.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "absl/base/casts.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "kernels/cuda/cuda_context.h"
#include "kernels/cuda/device_array.h"
#include "kernels/cuda/few_rows_linear.h"
#include "kernels/cuda/row_ops.h"
#include "tests/worker/collective/rank_processes.h"
#include "tests/worker/collective/rank_threads.h"
#include "worker/collective/shm_collective.h"

namespace lancet {
namespace {

using testing::HasSubstr;

constexpr int64_t kCapacity = int64_t{8} << 20;
constexpr int64_t kFewCapacity = int64_t{1} << 20;
constexpr absl::Duration kPatience = absl::Seconds(60);

// Devices of this machine, asked in a process of its own: this one forks ranks, so it must not know CUDA.
int Devices() {
  static const int devices = [] {
    RankProcess process([]() -> absl::Status { return absl::UnknownError(absl::StrCat(CudaDeviceCount())); });
    int count = 0;
    return absl::SimpleAtoi(process.Join().message(), &count) ? count : 0;
  }();
  return devices;
}

// A rank on its device.
struct Device {
  std::unique_ptr<CudaContext> ctx;
  std::unique_ptr<DeviceCollective> group;

  static absl::StatusOr<Device> Create(Collective& host, DeviceTransport transport) {
    Device device;
    LANCET_ASSIGN_OR_RETURN(device.ctx, CudaContext::Create(host.rank() % std::max(1, CudaDeviceCount())));
    LANCET_RETURN_IF_ERROR(device.Join(host, transport));
    return device;
  }
  absl::Status Join(Collective& host, DeviceTransport transport) {
    ctx->set_watch(nullptr);
    if (group != nullptr) group->Disconnect();
    DeviceCollectiveOptions options;
    options.transport = transport;
    options.lane_bytes = {kFewCapacity, kCapacity, kCapacity, kCapacity};
    options.create_deadline = Soon();
    LANCET_ASSIGN_OR_RETURN(group, DeviceCollective::Create(*ctx, &host, options));
    ctx->set_watch(group.get());
    return absl::OkStatus();
  }
};

RowSum Few(int64_t rows, int64_t cols) { return {DeviceLane::kFew, true, rows, cols}; }
RowSum Many(int64_t rows, int64_t cols, bool is_f32 = false) {
  return {DeviceLane::kMany, is_f32, rows, cols};
}
RowSum Half(int64_t rows, int64_t cols, int half) {
  return {half == 0 ? DeviceLane::kFirstHalf : DeviceLane::kSecondHalf, false, rows, cols};
}
bool IsHalf(const RowSum& sum) {
  return sum.lane == DeviceLane::kFirstHalf || sum.lane == DeviceLane::kSecondHalf;
}

float Residual(size_t i) { return PartialValue(11, i) * 0.5f; }

// x of a sum whose partial sums are PartialValue, rounded to bf16 where they travel as that.
std::vector<bf16> ExpectedRows(int world_size, const RowSum& shape) {
  std::vector<bf16> x(shape.rows * shape.cols);
  for (size_t i = 0; i < x.size(); ++i) {
    float sum = 0;
    for (int rank = 0; rank < world_size; ++rank) {
      sum += shape.is_f32 ? PartialValue(rank, i) : RoundToBf16(PartialValue(rank, i));
    }
    x[i] = ToBf16(RoundToBf16(Residual(i)) + RoundToBf16(sum));
  }
  return x;
}

absl::Status PutPartials(Device& device, const RowSum& shape) {
  LANCET_ASSIGN_OR_RETURN(void* const partials, device.group->NextPartials(shape));
  const int rank = device.group->rank();
  std::vector<uint8_t> bytes(shape.bytes());
  for (int64_t i = 0; i < shape.rows * shape.cols; ++i) {
    const float value = PartialValue(rank, i);
    if (shape.is_f32) {
      reinterpret_cast<float*>(bytes.data())[i] = value;
    } else {
      reinterpret_cast<bf16*>(bytes.data())[i] = ToBf16(value);
    }
  }
  LANCET_CUDA_RETURN_IF_ERROR(
      cudaMemcpyAsync(partials, bytes.data(), bytes.size(), cudaMemcpyHostToDevice, device.ctx->stream()));
  return device.ctx->Wait(kPatience);
}

// Also with a norm behind: the same bytes as those of the norm alone.
absl::Status SumAndCheck(Device& device, const RowSum& shape) {
  const int64_t values = shape.rows * shape.cols;
  const cudaStream_t stream = device.ctx->stream();
  std::vector<bf16> host(values);
  for (int64_t i = 0; i < values; ++i) host[i] = ToBf16(Residual(i));
  std::vector<bf16> weights(2 * shape.cols);
  for (size_t i = 0; i < weights.size(); ++i) weights[i] = ToBf16(PartialValue(5, i));
  LANCET_ASSIGN_OR_RETURN(auto x, DeviceArray<bf16>::CopyOf(host, stream));
  LANCET_ASSIGN_OR_RETURN(auto weight, DeviceArray<bf16>::CopyOf(weights, stream));
  LANCET_ASSIGN_OR_RETURN(auto normed, DeviceArray<bf16>::Create(values));
  LANCET_ASSIGN_OR_RETURN(auto normed_apart, DeviceArray<bf16>::Create(values));
  cuda::RowNorm norm;
  norm.first = weight.data();
  norm.second = weight.data() + shape.cols;
  norm.second_begin = shape.rows / 3;
  norm.eps = 1e-6f;
  norm.y = normed.data();
  LANCET_RETURN_IF_ERROR(PutPartials(device, shape));
  if (IsHalf(shape)) {
    LANCET_RETURN_IF_ERROR(device.group->Fetch(shape, stream));
    LANCET_RETURN_IF_ERROR(device.group->AddFetched(shape, x.data(), norm, stream));
  } else {
    LANCET_RETURN_IF_ERROR(device.group->AddSums(shape, x.data(), norm, stream));
  }
  const int64_t first_values = norm.second_begin * shape.cols;
  cuda::RowOutput output;
  output.bf16_rows = normed_apart.data();
  LANCET_CUDA_RETURN_IF_ERROR(cuda::RmsNorm(x.data(), shape.cols, norm.first, norm.eps, norm.second_begin,
                                            shape.cols, output, stream));
  output.bf16_rows += first_values;
  LANCET_CUDA_RETURN_IF_ERROR(cuda::RmsNorm(x.data() + first_values, shape.cols, norm.second, norm.eps,
                                            shape.rows - norm.second_begin, shape.cols, output, stream));
  std::vector<bf16> host_normed(values);
  std::vector<bf16> expected_normed(values);
  LANCET_RETURN_IF_ERROR(x.CopyTo(absl::MakeSpan(host), stream));
  LANCET_RETURN_IF_ERROR(normed.CopyTo(absl::MakeSpan(host_normed), stream));
  LANCET_RETURN_IF_ERROR(normed_apart.CopyTo(absl::MakeSpan(expected_normed), stream));
  LANCET_RETURN_IF_ERROR(device.ctx->Wait(kPatience));
  const std::vector<bf16> expected = ExpectedRows(device.group->world_size(), shape);
  for (int64_t i = 0; i < values; ++i) {
    if (host[i] == expected[i] && host_normed[i] == expected_normed[i]) continue;
    return absl::InternalError(absl::StrCat(
        "value ", i, " of ", shape.rows, " rows is ", ToFloat(host[i]), ", expected ", ToFloat(expected[i]),
        "; normalised ", ToFloat(host_normed[i]), ", expected ", ToFloat(expected_normed[i])));
  }
  return absl::OkStatus();
}

absl::Status GatherAndCheck(Device& device, int64_t bytes) {
  const int world_size = device.group->world_size();
  const auto value = [](int rank, int64_t i) { return static_cast<uint8_t>(rank * 101 + i * 7 + i / 256); };
  std::vector<uint8_t> host(bytes);
  for (int64_t i = 0; i < bytes; ++i) host[i] = value(device.group->rank(), i);
  LANCET_ASSIGN_OR_RETURN(auto mine, DeviceArray<uint8_t>::CopyOf(host, device.ctx->stream()));
  LANCET_ASSIGN_OR_RETURN(auto all, DeviceArray<uint8_t>::Create(bytes * world_size));
  LANCET_RETURN_IF_ERROR(device.group->AllGather(mine.data(), all.data(), bytes));
  host.resize(bytes * world_size);
  LANCET_RETURN_IF_ERROR(all.CopyTo(absl::MakeSpan(host), device.ctx->stream()));
  LANCET_RETURN_IF_ERROR(device.ctx->Wait(kPatience));
  for (int64_t i = 0; i < bytes * world_size; ++i) {
    if (host[i] != value(static_cast<int>(i / bytes), i % bytes)) {
      return absl::InternalError(absl::StrCat("byte ", i, " of a gathering of ", bytes, " is wrong"));
    }
  }
  return absl::OkStatus();
}

// Sums of many sizes in both lanes, gatherings between them.
absl::Status ManyRounds(Device& device) {
  for (const RowSum& shape :
       {Few(1, 2048), Few(8, 2048), Many(300, 512), Many(516, 2048), Many(0, 512), Many(200, 136),
        Many(200, 512, true), Few(3, 136), Many(20, 2304), Many(400, 2048, true), Half(300, 2048, 0),
        Half(200, 2048, 1), Half(1, 512, 0), Half(90, 2048, 0)}) {
    if (IsHalf(shape) && !device.group->can_fetch()) continue;
    LANCET_RETURN_IF_ERROR(SumAndCheck(device, shape));
    LANCET_RETURN_IF_ERROR(GatherAndCheck(device, 16 * (shape.rows + 1)));
  }
  // More than a slot holds at once.
  return GatherAndCheck(device, kCapacity + 4096);
}

// Two sums, captured once and replayed: x grows by the same amount each time.
absl::Status Replayed(Device& device) {
  const RowSum shape = Many(40, 2048);
  const int64_t values = shape.rows * shape.cols;
  const cudaStream_t stream = device.ctx->stream();
  const std::vector<bf16> zeros(values);
  LANCET_ASSIGN_OR_RETURN(auto x, DeviceArray<bf16>::CopyOf(zeros, stream));
  LANCET_RETURN_IF_ERROR(device.ctx->Wait(kPatience));
  LANCET_RETURN_IF_ERROR(device.group->Align());
  const auto enqueue = [&]() -> absl::Status {
    for (int i = 0; i < 2; ++i) {
      LANCET_ASSIGN_OR_RETURN(void* const partials, device.group->NextPartials(shape));
      // 0x3f3f is 0.746: exact in bf16, so that sums of it are as well.
      LANCET_CUDA_RETURN_IF_ERROR(
          cudaMemsetAsync(partials, 0x3f, static_cast<size_t>(shape.bytes()), stream));
      LANCET_RETURN_IF_ERROR(device.group->AddSums(shape, x.data(), {}, stream));
    }
    return absl::OkStatus();
  };
  LANCET_CUDA_RETURN_IF_ERROR(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  const absl::Status status = enqueue();
  cudaGraph_t captured = nullptr;
  LANCET_CUDA_RETURN_IF_ERROR(cudaStreamEndCapture(stream, &captured));
  LANCET_RETURN_IF_ERROR(status);
  cudaGraphExec_t graph = nullptr;
  LANCET_CUDA_RETURN_IF_ERROR(cudaGraphInstantiate(&graph, captured, 0));
  constexpr int kReplays = 5;
  for (int i = 0; i < kReplays; ++i) {
    LANCET_CUDA_RETURN_IF_ERROR(cudaGraphLaunch(graph, stream));
    // A plain sum in between, as other passes have.
    if (i == 2) LANCET_RETURN_IF_ERROR(SumAndCheck(device, Many(8, 512)));
    LANCET_RETURN_IF_ERROR(device.group->Align());
  }
  std::vector<bf16> host(values);
  LANCET_RETURN_IF_ERROR(x.CopyTo(absl::MakeSpan(host), stream));
  LANCET_RETURN_IF_ERROR(device.ctx->Wait(kPatience));
  cudaGraphExecDestroy(graph);
  cudaGraphDestroy(captured);
  const float step = RoundToBf16(static_cast<float>(device.group->world_size()) * 0.74609375f);
  float expected = 0;
  for (int i = 0; i < 2 * kReplays; ++i) expected = RoundToBf16(expected + step);
  for (int64_t i = 0; i < values; ++i) {
    if (ToFloat(host[i]) != expected) {
      return absl::InternalError(
          absl::StrCat("value ", i, " is ", ToFloat(host[i]), ", expected ", expected));
    }
  }
  return absl::OkStatus();
}

// Sums of both lanes on streams of their own.
absl::Status LanesApart(Device& device) {
  if (!device.group->lanes_overlap()) return absl::OkStatus();
  const RowSum few = Few(4, 2048);
  const RowSum many = Many(512, 2048);
  CudaHandle<cudaStream_t, cudaStreamDestroy> beside;
  LANCET_CUDA_RETURN_IF_ERROR(cudaStreamCreateWithFlags(beside.receive(), cudaStreamNonBlocking));
  const cudaStream_t stream = device.ctx->stream();
  const std::vector<bf16> zeros(many.rows * many.cols);
  LANCET_ASSIGN_OR_RETURN(auto x, DeviceArray<bf16>::CopyOf(zeros, stream));
  LANCET_ASSIGN_OR_RETURN(auto y, DeviceArray<bf16>::CopyOf(zeros, stream));
  LANCET_RETURN_IF_ERROR(device.ctx->Wait(kPatience));
  constexpr int kRounds = 50;
  for (int i = 0; i < kRounds; ++i) {
    // Ranks come to the lanes in turns.
    for (const bool first : {device.group->rank() % 2 == 0, device.group->rank() % 2 != 0}) {
      const RowSum& sum = first ? few : many;
      const cudaStream_t on = first ? beside.get() : stream;
      LANCET_ASSIGN_OR_RETURN(void* const partials, device.group->NextPartials(sum));
      LANCET_CUDA_RETURN_IF_ERROR(cudaMemsetAsync(partials, 0x3f, static_cast<size_t>(sum.bytes()), on));
      LANCET_RETURN_IF_ERROR(device.group->AddSums(sum, first ? y.data() : x.data(), {}, on));
    }
  }
  std::vector<bf16> host(many.rows * many.cols);
  for (const auto& [array, sum, value] :
       {std::make_tuple(x.data(), many, 0.74609375f),
        std::make_tuple(y.data(), few, absl::bit_cast<float>(0x3f3f3f3f))}) {
    LANCET_CUDA_RETURN_IF_ERROR(cudaStreamSynchronize(beside.get()));
    LANCET_CUDA_RETURN_IF_ERROR(cudaMemcpyAsync(
        host.data(), array, static_cast<size_t>(sum.rows * sum.cols) * 2, cudaMemcpyDeviceToHost, stream));
    LANCET_RETURN_IF_ERROR(device.ctx->Wait(kPatience));
    float all = 0;
    for (int rank = 0; rank < device.group->world_size(); ++rank) all += value;
    float expected = 0;
    for (int i = 0; i < kRounds; ++i) expected = RoundToBf16(expected + RoundToBf16(all));
    for (int64_t i = 0; i < sum.rows * sum.cols; ++i) {
      if (ToFloat(host[i]) == expected) continue;
      return absl::InternalError(
          absl::StrCat("value ", i, " of a lane is ", ToFloat(host[i]), ", expected ", expected));
    }
  }
  return absl::OkStatus();
}

// Products of few rows that hand their sums to every rank, many times, against the same products' sums
// gathered and added here.
absl::Status SharedSumsAgree(Device& device) {
  if (!device.group->can_share()) return absl::OkStatus();
  constexpr int64_t kRows = 512;
  constexpr int64_t kCols = 128;
  const int world_size = device.group->world_size();
  const int rank = device.group->rank();
  const cudaStream_t stream = device.ctx->stream();
  for (const int tokens : {1, 8, 3, 1, 5}) {
    std::vector<bf16> weights(kRows * kCols);
    for (size_t i = 0; i < weights.size(); ++i) weights[i] = ToBf16(PartialValue(rank, i));
    std::vector<bf16> inputs(tokens * kCols);
    for (size_t i = 0; i < inputs.size(); ++i) inputs[i] = ToBf16(PartialValue(rank + 8, i));
    std::vector<bf16> host(tokens * kRows);
    for (size_t i = 0; i < host.size(); ++i) host[i] = ToBf16(Residual(i));
    LANCET_ASSIGN_OR_RETURN(auto w, DeviceArray<bf16>::CopyOf(weights, stream));
    LANCET_ASSIGN_OR_RETURN(auto in, DeviceArray<bf16>::CopyOf(inputs, stream));
    LANCET_ASSIGN_OR_RETURN(auto x, DeviceArray<bf16>::CopyOf(host, stream));
    LANCET_ASSIGN_OR_RETURN(auto partial, DeviceArray<float>::Create(tokens * kRows));
    LANCET_ASSIGN_OR_RETURN(auto all, DeviceArray<float>::Create(tokens * kRows * world_size));
    cuda::FewRowsArgs args;
    args.x = in.data();
    args.x_stride = kCols;
    args.tokens = tokens;
    args.dense = w.data();
    args.rows = kRows;
    args.cols = kCols;
    args.output = cuda::FewRowsOutput::kF32;
    args.y_f32 = partial.data();
    args.y_stride = kRows;
    LANCET_CUDA_RETURN_IF_ERROR(cuda::FewRowsLinear(args, stream));
    LANCET_RETURN_IF_ERROR(device.group->AllGather(partial.data(), all.data(), partial.bytes()));
    const RowSum sum = Few(tokens, kRows);
    constexpr int kSums = 6;
    for (int i = 0; i < kSums; ++i) {
      LANCET_ASSIGN_OR_RETURN(args.shared, device.group->NextShared(sum));
      LANCET_CUDA_RETURN_IF_ERROR(cuda::FewRowsLinear(args, stream));
      LANCET_RETURN_IF_ERROR(device.group->AddShared(sum, x.data(), stream));
    }
    std::vector<float> partials(tokens * kRows * world_size);
    LANCET_RETURN_IF_ERROR(all.CopyTo(absl::MakeSpan(partials), stream));
    LANCET_RETURN_IF_ERROR(x.CopyTo(absl::MakeSpan(host), stream));
    LANCET_RETURN_IF_ERROR(device.ctx->Wait(kPatience));
    for (size_t i = 0; i < host.size(); ++i) {
      float total = 0;
      for (int r = 0; r < world_size; ++r) total += partials[r * host.size() + i];
      float expected = RoundToBf16(Residual(i));
      for (int k = 0; k < kSums; ++k) expected = RoundToBf16(expected + RoundToBf16(total));
      if (ToFloat(host[i]) == expected) continue;
      return absl::InternalError(
          absl::StrCat("value ", i, " of ", tokens, " rows is ", ToFloat(host[i]), ", expected ", expected));
    }
  }
  return absl::OkStatus();
}

// Sums without an end, until one fails.
absl::Status SumForever(Device& device, const std::function<void(int)>& after) {
  const RowSum shape = Many(64, 2048);
  const RowSum half = Half(64, 2048, 1);
  const cudaStream_t stream = device.ctx->stream();
  LANCET_ASSIGN_OR_RETURN(auto x, DeviceArray<bf16>::Create(shape.rows * shape.cols));
  for (int round = 0;; ++round) {
    for (int i = 0; i < 10; ++i) {
      LANCET_RETURN_IF_ERROR(device.group->NextPartials(shape).status());
      LANCET_RETURN_IF_ERROR(device.group->AddSums(shape, x.data(), {}, stream));
      if (!device.group->can_fetch()) continue;
      LANCET_RETURN_IF_ERROR(device.group->NextPartials(half).status());
      LANCET_RETURN_IF_ERROR(device.group->Fetch(half, stream));
      LANCET_RETURN_IF_ERROR(device.group->AddFetched(half, x.data(), {}, stream));
    }
    after(round);
    LANCET_RETURN_IF_ERROR(device.ctx->Wait(kPatience));
  }
}

struct Case {
  const char* name;
  DeviceTransport transport;

  friend void PrintTo(const Case& value, std::ostream* out) { *out << value.name; }
};

class DeviceCollectiveTest : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (Devices() == 0) GTEST_SKIP() << "no CUDA device";
    if (transport() == DeviceTransport::kNccl && Devices() < 2) {
      GTEST_SKIP() << "NCCL wants a device for each of two ranks; there is one";
    }
  }
  DeviceTransport transport() const { return GetParam().transport; }

  std::unique_ptr<RankProcess> Fork(int rank, int world_size, const std::string& segment,
                                    const std::function<absl::Status(ShmCollective&)>& body) const {
    return std::make_unique<RankProcess>([rank, world_size, segment, body]() -> absl::Status {
      LANCET_ASSIGN_OR_RETURN(const auto host, Host(rank, world_size, segment));
      return body(*host);
    });
  }
  static absl::StatusOr<std::unique_ptr<ShmCollective>> Host(int rank, int world_size,
                                                             const std::string& segment) {
    ShmOptions options;
    options.segment_name = segment;
    options.rank = rank;
    options.world_size = world_size;
    options.capacity_floats = 64;
    options.create_deadline = Soon();
    return ShmCollective::Create(options);
  }
  // Runs `body` on every rank of a group of processes, which share devices if there are too few.
  void RunGroup(int world_size, const std::function<absl::Status(Device&)>& body) const {
    const std::string segment = UniqueSegmentName();
    std::vector<std::unique_ptr<RankProcess>> ranks;
    for (int rank = 0; rank < world_size; ++rank) {
      ranks.push_back(Fork(rank, world_size, segment, [&](ShmCollective& host) -> absl::Status {
        LANCET_ASSIGN_OR_RETURN(Device device, Device::Create(host, transport()));
        LANCET_RETURN_IF_ERROR(body(device));
        return host.Barrier(Soon());
      }));
    }
    for (const auto& rank : ranks) {
      const absl::Status status = rank->Join();
      EXPECT_TRUE(status.ok()) << world_size << " ranks: " << status;
    }
  }
};

INSTANTIATE_TEST_SUITE_P(Transports, DeviceCollectiveTest,
                         testing::Values(Case{"PeerMemory", DeviceTransport::kPeerMemory},
                                         Case{"Nccl", DeviceTransport::kNccl}),
                         [](const auto& param_info) { return param_info.param.name; });

TEST_P(DeviceCollectiveTest, EveryRankGetsTheSumInRankOrder) { RunGroup(2, ManyRounds); }

TEST_P(DeviceCollectiveTest, ProductsHandTheirSumsToEveryRank) {
  for (const int world_size : {2, 4}) {
    if (transport() == DeviceTransport::kNccl && world_size > Devices()) continue;
    RunGroup(world_size, SharedSumsAgree);
  }
}

TEST_P(DeviceCollectiveTest, LanesKnowNothingOfEachOther) { RunGroup(2, LanesApart); }

TEST_P(DeviceCollectiveTest, CapturedSumsAreReplayed) { RunGroup(2, Replayed); }

TEST_P(DeviceCollectiveTest, RankThatDoesNotComeIsADeadline) {
  const std::string segment = UniqueSegmentName();
  const auto rank1 = Fork(1, 2, segment, [&](ShmCollective& host) -> absl::Status {
    LANCET_ASSIGN_OR_RETURN(Device device, Device::Create(host, transport()));
    LANCET_RETURN_IF_ERROR(SumAndCheck(device, Few(1, 512)));
    return host.Barrier(Soon());  // while rank 0 waits for its device
  });
  const auto rank0 = Fork(0, 2, segment, [&](ShmCollective& host) -> absl::Status {
    LANCET_ASSIGN_OR_RETURN(Device device, Device::Create(host, transport()));
    const RowSum shape = Few(1, 512);
    LANCET_RETURN_IF_ERROR(SumAndCheck(device, shape));
    LANCET_ASSIGN_OR_RETURN(auto x, DeviceArray<bf16>::Create(512));
    LANCET_RETURN_IF_ERROR(device.group->NextPartials(shape).status());
    LANCET_RETURN_IF_ERROR(device.group->AddSums(shape, x.data(), {}, device.ctx->stream()));
    const absl::Time start = absl::Now();
    const absl::Status status = device.ctx->Wait(absl::Milliseconds(300));
    if (absl::Now() - start > absl::Seconds(2)) return absl::InternalError("the wait ended too late");
    // Broken for good.
    if (device.group->AddSums(shape, x.data(), {}, device.ctx->stream()) != status)
      return absl::InternalError("a later call is another error");
    return status;
  });
  EXPECT_EQ(rank0->Join().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(rank1->Join().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_P(DeviceCollectiveTest, AbortOfOneRankEndsAll) {
  const std::string segment = UniqueSegmentName();
  std::vector<std::unique_ptr<RankProcess>> ranks;
  for (int rank = 0; rank < 2; ++rank) {
    ranks.push_back(Fork(rank, 2, segment, [&, rank](ShmCollective& host) -> absl::Status {
      LANCET_ASSIGN_OR_RETURN(Device device, Device::Create(host, transport()));
      if (rank == 0) return SumForever(device, [](int) {});
      // This rank's device waits for nobody; another thread ends the group.
      std::thread other([&] {
        absl::SleepFor(absl::Milliseconds(50));
        device.group->Abort(absl::CancelledError("told to stop"));
      });
      const absl::Status status = SumForever(device, [](int) {});
      other.join();
      return status;
    }));
  }
  for (const auto& rank : ranks) {
    const absl::Status status = rank->Join();
    EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
  }
}

TEST_P(DeviceCollectiveTest, SurvivorNamesTheKilledRankAndFormsAnew) {
  const std::string first = UniqueSegmentName();
  const std::string second = UniqueSegmentName();
  const auto survivor = Fork(0, 2, first, [&](ShmCollective& host) -> absl::Status {
    LANCET_ASSIGN_OR_RETURN(Device device, Device::Create(host, transport()));
    absl::Time last = absl::Now();
    const absl::Status status = SumForever(device, [&](int) { last = absl::Now(); });
    const absl::Duration took = absl::Now() - last;
    if (status.code() != absl::StatusCode::kUnavailable) return status;
    if (took > absl::Seconds(2)) {
      return absl::InternalError(absl::StrCat("noticed after ", absl::FormatDuration(took)));
    }
    if (!absl::StrContains(status.message(), "rank 1 is gone")) return status;
    LANCET_ASSIGN_OR_RETURN(const auto next, Host(0, 2, second));
    LANCET_RETURN_IF_ERROR(device.Join(*next, transport()));
    LANCET_RETURN_IF_ERROR(ManyRounds(device));
    return next->Barrier(Soon());
  });
  const auto killed = Fork(1, 2, first, [&](ShmCollective& host) -> absl::Status {
    LANCET_ASSIGN_OR_RETURN(Device device, Device::Create(host, transport()));
    // In the middle of what was just enqueued.
    return SumForever(device, [](int round) {
      if (round == 20) raise(SIGKILL);
    });
  });
  const auto next = Fork(1, 2, second, [&](ShmCollective& host) -> absl::Status {
    LANCET_ASSIGN_OR_RETURN(Device device, Device::Create(host, transport()));
    LANCET_RETURN_IF_ERROR(ManyRounds(device));
    return host.Barrier(Soon());
  });
  EXPECT_EQ(killed->Join().code(), absl::StatusCode::kAborted);
  const absl::Status status = survivor->Join();
  EXPECT_TRUE(status.ok()) << status;
  const absl::Status joined = next->Join();
  EXPECT_TRUE(joined.ok()) << joined;
}

TEST_P(DeviceCollectiveTest, ThreadsOfOneProcess) {
  for (const int world_size : {2, 4, 8}) {
    if (world_size > Devices()) continue;
    RankProcess process([&, world_size]() -> absl::Status {
      const Group hosts = MakeGroup(world_size, 64);
      std::vector<absl::Status> outcomes(world_size);
      RunRanks(hosts, [&](ShmCollective& host) {
        outcomes[host.rank()] = [&]() -> absl::Status {
          LANCET_ASSIGN_OR_RETURN(Device device, Device::Create(host, transport()));
          LANCET_RETURN_IF_ERROR(Replayed(device));
          return host.Barrier(Soon());
        }();
        if (!outcomes[host.rank()].ok()) host.Abort(outcomes[host.rank()]);
      });
      for (const absl::Status& outcome : outcomes) LANCET_RETURN_IF_ERROR(outcome);
      return absl::OkStatus();
    });
    const absl::Status status = process.Join();
    EXPECT_TRUE(status.ok()) << world_size << " ranks: " << status;
  }
}

TEST_P(DeviceCollectiveTest, LargerGroups) {
  for (const int world_size : {3, 4, 8}) {
    if (transport() == DeviceTransport::kNccl && world_size > Devices()) continue;
    RunGroup(world_size, ManyRounds);
  }
}

TEST_P(DeviceCollectiveTest, WhatCannotBeIsSaid) {
  // Two ranks on one device: threads of one process in one case, processes in the other.
  const bool nccl = transport() == DeviceTransport::kNccl;
  const std::string segment = UniqueSegmentName();
  const auto on_first = [&](Collective& host) -> absl::Status {
    LANCET_ASSIGN_OR_RETURN(const auto ctx, CudaContext::Create(0));
    DeviceCollectiveOptions options;
    options.transport = transport();
    options.lane_bytes.fill(4096);
    options.create_deadline = Soon();
    return DeviceCollective::Create(*ctx, &host, options).status();
  };
  std::vector<std::unique_ptr<RankProcess>> processes;
  if (nccl) {
    for (int rank = 0; rank < 2; ++rank) processes.push_back(Fork(rank, 2, segment, on_first));
  } else {
    processes.push_back(std::make_unique<RankProcess>([&]() -> absl::Status {
      const Group hosts = MakeGroup(2, 64);
      absl::Status outcomes[2];
      RunRanks(hosts, [&](ShmCollective& host) { outcomes[host.rank()] = on_first(host); });
      return outcomes[0].code() == outcomes[1].code() ? outcomes[0] : absl::InternalError("ranks disagree");
    }));
  }
  for (const auto& process : processes) {
    const absl::Status status = process->Join();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("on one device"));
  }
}

}  // namespace
}  // namespace lancet
