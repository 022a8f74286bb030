// Speed of the trunk's kernels beside what the machine can do. Each benchmark reports GFLOP/s and its share
// of a limit measured in the same process: a loop of independent bf16 products on registers (the instruction
// that the widest kernel uses), or, for one token, a read of memory as large as the weights.
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "bench/peak.h"
#include "benchmark/benchmark.h"
#include "kernels/activation.h"
#include "kernels/attention.h"
#include "kernels/bf16_gemm.h"
#include "kernels/nvfp4.h"

namespace lancet {
namespace {

std::unique_ptr<KernelContext> Context(CpuIsa isa) {
  CpuOptions options;
  options.threads = 1;
  options.max_isa = isa;
  auto ctx = KernelContext::CreateCpu(options);
  if (!ctx.ok()) return nullptr;
  (*ctx)->BindCallingThread();
  return *std::move(ctx);
}

std::vector<bf16> Values(int64_t n) {
  std::vector<bf16> v(static_cast<size_t>(n));
  uint32_t state = 1;
  for (bf16& x : v) {
    state = state * 1664525u + 1013904223u;
    x = ToBf16(static_cast<float>(state >> 8) / 8388608.0f - 1.0f);
  }
  return v;
}

void Report(benchmark::State& state, double flops) {
  const double done = flops * static_cast<double>(state.iterations());
  state.counters["GFLOP/s"] = benchmark::Counter(done / 1e9, benchmark::Counter::kIsRate);
  // Measured right after the benchmark: on a shared machine the limit moves too.
  const double peak = MeasurePeakFlops(DetectCpuIsa());
  state.counters["of_peak"] = benchmark::Counter(done / peak, benchmark::Counter::kIsRate);
}

// Arguments: rows, cols, tokens, instruction set.
void BM_Nvfp4Gemm(benchmark::State& state) {
  const int64_t rows = state.range(0);
  const int64_t cols = state.range(1);
  const int64_t tokens = state.range(2);
  const auto ctx = Context(static_cast<CpuIsa>(state.range(3)));
  const std::vector<uint8_t> codes(static_cast<size_t>(rows * cols / 2), 0x53);
  const std::vector<bf16> scales(static_cast<size_t>(rows * cols / 16), ToBf16(0.01f));
  const Nvfp4MatrixView view = {rows, cols, codes.data(), cols / 2, scales.data(), cols / 16};
  const auto weights = Nvfp4Weights::Pack(*ctx, {view});
  const std::vector<bf16> x = Values(tokens * cols);
  std::vector<bf16> y(static_cast<size_t>(tokens * rows));
  while (state.KeepRunning()) {
    const absl::Status status =
        Nvfp4Gemm(*ctx, {x.data(), tokens, cols}, *weights, {}, {y.data(), tokens, rows});
    if (!status.ok()) state.SkipWithError(std::string(status.message()).c_str());
  }
  state.SetLabel(std::string(CpuIsaName(ctx->isa())));
  Report(state, 2.0 * static_cast<double>(rows * cols * tokens));
  if (tokens == 1) {
    const double bytes =
        static_cast<double>(weights->resident_bytes()) * static_cast<double>(state.iterations());
    state.counters["GB/s"] = benchmark::Counter(bytes / 1e9, benchmark::Counter::kIsRate);
    state.counters["of_memory"] = benchmark::Counter(bytes / MeasureReadBandwidth(weights->resident_bytes()),
                                                     benchmark::Counter::kIsRate);
  }
}

void BM_Bf16Gemm(benchmark::State& state) {
  const int64_t rows = state.range(0);
  const int64_t cols = state.range(1);
  const int64_t tokens = state.range(2);
  const auto ctx = Context(CpuIsa::kAvx512Bf16);
  const std::vector<bf16> w = Values(rows * cols);
  const auto weights = Bf16Weights::Pack(*ctx, {w.data(), rows, cols});
  const std::vector<bf16> x = Values(tokens * cols);
  std::vector<bf16> y(static_cast<size_t>(tokens * rows));
  while (state.KeepRunning()) {
    const absl::Status status =
        Bf16Gemm(*ctx, {x.data(), tokens, cols}, *weights, {}, MatrixView<bf16>(y.data(), tokens, rows));
    if (!status.ok()) state.SkipWithError(std::string(status.message()).c_str());
  }
  Report(state, 2.0 * static_cast<double>(rows * cols * tokens));
}

// Arguments: heads, kv heads, block rows, past tokens.
void BM_Attention(benchmark::State& state) {
  constexpr int64_t kHeadDim = 128;
  const int64_t heads = state.range(0);
  const int64_t kv_heads = state.range(1);
  const int64_t block = state.range(2);
  const int64_t past = state.range(3);
  const auto ctx = Context(CpuIsa::kAvx512Bf16);
  const std::vector<bf16> q = Values(block * heads * kHeadDim);
  const std::vector<bf16> k = Values(block * kv_heads * kHeadDim);
  const std::vector<bf16> past_k = Values(past * kv_heads * kHeadDim);
  std::vector<bf16> out(q.size());
  std::vector<int32_t> kv_head_of;
  for (int64_t h = 0; h < heads; ++h) kv_head_of.push_back(static_cast<int32_t>(h * kv_heads / heads));
  std::vector<int32_t> rows(static_cast<size_t>(block));
  std::iota(rows.begin(), rows.end(), 0);
  AttentionArgs args;
  args.head_dim = kHeadDim;
  args.kv_head_of = kv_head_of;
  args.q = {q.data(), block, heads * kHeadDim};
  args.k = {k.data(), block, kv_heads * kHeadDim};
  args.v = args.k;
  args.rows = rows;
  const ConstMatrixView<bf16> past_rows(past_k.data(), past, kv_heads * kHeadDim);
  const PastTokens past_tokens{past_rows, past_rows};
  args.past = {&past_tokens, 1};
  while (state.KeepRunning()) {
    const absl::Status status = Attention(*ctx, args, {out.data(), block, heads * kHeadDim});
    if (!status.ok()) state.SkipWithError(std::string(status.message()).c_str());
  }
  Report(state, 4.0 * static_cast<double>(heads * kHeadDim * block * (block + past)));
}

// Arguments: tokens, columns of the result.
void BM_SiluMul(benchmark::State& state) {
  const int64_t tokens = state.range(0);
  const int64_t n = state.range(1);
  const auto ctx = Context(CpuIsa::kAvx512Bf16);
  const std::vector<bf16> x = Values(tokens * 2 * n);
  std::vector<bf16> y(static_cast<size_t>(tokens * n));
  while (state.KeepRunning()) {
    const absl::Status status = SiluMul(*ctx, {x.data(), tokens, 2 * n}, {y.data(), tokens, n});
    if (!status.ok()) state.SkipWithError(std::string(status.message()).c_str());
  }
  state.SetItemsProcessed(state.iterations() * tokens * n);
}

void Nvfp4Shapes(benchmark::internal::Benchmark* bench) {
  const int64_t best = static_cast<int64_t>(DetectCpuIsa());
  for (const int64_t tokens : {1, 18, 258, 516, 2306}) {
    bench->Args({2048, 2048, tokens, best});
    bench->Args({11008, 2048, tokens, best});
    bench->Args({2048, 11008, tokens, best});
  }
  // The bundled model's widths.
  for (const int64_t tokens : {1, 18, 258, 516}) {
    bench->Args({512, 512, tokens, best});
    bench->Args({2048, 512, tokens, best});
    bench->Args({512, 1024, tokens, best});
  }
  for (int64_t isa = 0; isa < best; ++isa) bench->Args({2048, 2048, 258, isa});
}

BENCHMARK(BM_Nvfp4Gemm)->Apply(Nvfp4Shapes)->Unit(benchmark::kMicrosecond);
BENCHMARK(BM_Bf16Gemm)
    ->Args({2048, 48, 258})
    ->Args({48, 2048, 258})
    ->Args({1024, 512, 1})
    ->Args({1024, 512, 258})
    ->Args({3840, 1280, 2304})
    ->Unit(benchmark::kMicrosecond);
BENCHMARK(BM_Attention)
    ->Args({4, 2, 258, 60})
    ->Args({16, 2, 258, 60})
    ->Args({16, 2, 2306, 60})
    ->Args({16, 2, 1, 2000})
    ->Unit(benchmark::kMicrosecond);
BENCHMARK(BM_SiluMul)->Args({258, 11008})->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace lancet

BENCHMARK_MAIN();
