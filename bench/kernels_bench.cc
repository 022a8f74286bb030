// Speed of the trunk's kernels beside what the machine can do. The limits are measured first, in the same
// process, and printed; each benchmark then reports GFLOP/s and its share of its own limit, measured again
// right after it, as on a shared machine limits move:
//   of_peak    independent f32 or bf16 multiply-adds on registers, the widest that the kernel may use
//   of_int8    products of bytes on registers, for w4a8_int8
//   of_block   whole blocks of w4a8_int8 on registers (bench/peak.h)
//   of_memory  a read of memory as large as the weights, for few tokens
// Times are of the thread's own CPU, so that other work on the machine counts less. One thread.
#include <cstdio>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "bench/peak.h"
#include "benchmark/benchmark.h"
#include "kernels/activation.h"
#include "kernels/attention.h"
#include "kernels/bf16_gemm.h"
#include "kernels/int8_gemm.h"
#include "kernels/nvfp4.h"

namespace lancet {
namespace {

// With the kernels of `isa`, whether or not they are the fastest here.
std::unique_ptr<KernelContext> Context(CpuIsa isa, bool vnni = true, bool bf16_dots = true) {
  CpuOptions options;
  options.threads = 1;
  options.max_isa = isa;
  options.use_vnni = vnni;
  options.use_bf16_dots = bf16_dots;
  auto ctx = KernelContext::CreateCpu(options);
  if (!ctx.ok()) return nullptr;
  (*ctx)->BindCallingThread();
  return *std::move(ctx);
}

// With those that a worker would use.
std::unique_ptr<KernelContext> BestContext(bool vnni = true) {
  return Context(DetectCpuIsa(), vnni, Bf16DotsAreFast());
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

// Share of `limit`, operations or bytes a second, of `done` of them in each iteration.
void Share(benchmark::State& state, const char* name, double done, double limit) {
  state.counters[name] =
      benchmark::Counter(done * static_cast<double>(state.iterations()) / limit, benchmark::Counter::kIsRate);
}

void Report(benchmark::State& state, double flops, CpuIsa isa) {
  state.counters["GFLOP/s"] =
      benchmark::Counter(flops * static_cast<double>(state.iterations()) / 1e9, benchmark::Counter::kIsRate);
  Share(state, "of_peak", flops, MeasurePeakFlops(isa));
}

// How an NVFP4 product multiplies.
enum class Mode { kW4A16, kInt8, kInt8NoVnni };

std::string Label(const KernelContext& ctx, Mode mode) {
  const std::string isa(CpuIsaName(ctx.product_isa()));
  return mode == Mode::kW4A16 ? "w4a16 " + isa : "w4a8_int8 " + isa + (ctx.has_vnni() ? " vnni" : "");
}

void ReportNvfp4(benchmark::State& state, const KernelContext& ctx, Mode mode, double weights, int64_t tokens,
                 int64_t bytes) {
  state.SetLabel(Label(ctx, mode));
  const double flops = 2.0 * weights * static_cast<double>(tokens);
  Report(state, flops, ctx.product_isa());
  if (mode != Mode::kW4A16) {
    Share(state, "of_int8", flops, MeasurePeakInt8(ctx.isa(), ctx.has_vnni()));
    Share(state, "of_block", flops, MeasureBlockInt8(ctx.isa(), ctx.has_vnni()));
  }
  if (tokens <= 8) {
    state.counters["GB/s"] =
        benchmark::Counter(static_cast<double>(bytes) * static_cast<double>(state.iterations()) / 1e9,
                           benchmark::Counter::kIsRate);
    Share(state, "of_memory", static_cast<double>(bytes), MeasureReadBandwidth(bytes));
  }
}

Nvfp4Weights RandomWeights(const KernelContext& ctx, int64_t rows, int64_t cols) {
  std::vector<uint8_t> codes(static_cast<size_t>(rows * cols / 2));
  uint32_t random = 7;
  for (uint8_t& byte : codes) byte = static_cast<uint8_t>((random = random * 1664525u + 1013904223u) >> 24);
  const std::vector<bf16> scales(static_cast<size_t>(rows * cols / 16), ToBf16(0.01f));
  auto packed = Nvfp4Weights::Pack(ctx, {{rows, cols, codes.data(), cols / 2, scales.data(), cols / 16}});
  return packed.ok() ? *std::move(packed) : Nvfp4Weights();
}

absl::Status Product(const KernelContext& ctx, Mode mode, ConstMatrixView<bf16> x, const Nvfp4Weights& w,
                     MatrixView<bf16> y) {
  return mode == Mode::kW4A16 ? Nvfp4Gemm(ctx, x, w, {}, y) : Int8Gemm(ctx, x, w, {}, y);
}

// Arguments: rows, cols, tokens, instruction set, Mode.
void BM_Nvfp4(benchmark::State& state) {
  const int64_t rows = state.range(0);
  const int64_t cols = state.range(1);
  const int64_t tokens = state.range(2);
  const Mode mode = static_cast<Mode>(state.range(4));
  const auto ctx = Context(static_cast<CpuIsa>(state.range(3)), mode != Mode::kInt8NoVnni);
  const Nvfp4Weights weights = RandomWeights(*ctx, rows, cols);
  const std::vector<bf16> x = Values(tokens * cols);
  std::vector<bf16> y(static_cast<size_t>(tokens * rows));
  while (state.KeepRunning()) {
    const absl::Status status =
        Product(*ctx, mode, {x.data(), tokens, cols}, weights, {y.data(), tokens, rows});
    if (!status.ok()) state.SkipWithError(std::string(status.message()).c_str());
  }
  ReportNvfp4(state, *ctx, mode, static_cast<double>(rows * cols), tokens, weights.resident_bytes());
}

// The products of one layer and expert at the release's sizes, one after the other. Arguments: tokens, Mode.
void BM_LayerLinears(benchmark::State& state) {
  const int64_t tokens = state.range(0);
  const Mode mode = static_cast<Mode>(state.range(1));
  const auto ctx = BestContext();
  std::vector<Nvfp4Weights> linears;
  for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{2560, 2048},  // q, k and v
                                   {2048, 2048},                             // o
                                   {2 * 11008, 2048},                        // gate and up
                                   {2048, 11008}}) {                         // down
    linears.push_back(RandomWeights(*ctx, rows, cols));
  }
  const std::vector<bf16> x = Values(tokens * 11008);
  std::vector<bf16> y(static_cast<size_t>(tokens * 2 * 11008));
  while (state.KeepRunning()) {
    for (const Nvfp4Weights& w : linears) {
      const absl::Status status =
          Product(*ctx, mode, {x.data(), tokens, w.cols()}, w, {y.data(), tokens, w.rows()});
      if (!status.ok()) state.SkipWithError(std::string(status.message()).c_str());
    }
  }
  double weights = 0;
  int64_t bytes = 0;
  for (const Nvfp4Weights& w : linears) {
    weights += static_cast<double>(w.rows() * w.cols());
    bytes += w.resident_bytes();
  }
  ReportNvfp4(state, *ctx, mode, weights, tokens, bytes);
}

void BM_Bf16Gemm(benchmark::State& state) {
  const int64_t rows = state.range(0);
  const int64_t cols = state.range(1);
  const int64_t tokens = state.range(2);
  const auto ctx = BestContext();
  const std::vector<bf16> w = Values(rows * cols);
  const auto weights = Bf16Weights::Pack(*ctx, {w.data(), rows, cols});
  const std::vector<bf16> x = Values(tokens * cols);
  std::vector<bf16> y(static_cast<size_t>(tokens * rows));
  while (state.KeepRunning()) {
    const absl::Status status =
        Bf16Gemm(*ctx, {x.data(), tokens, cols}, *weights, {}, MatrixView<bf16>(y.data(), tokens, rows));
    if (!status.ok()) state.SkipWithError(std::string(status.message()).c_str());
  }
  Report(state, 2.0 * static_cast<double>(rows * cols * tokens), ctx->product_isa());
}

// Arguments: heads, kv heads, block rows, past tokens.
void BM_Attention(benchmark::State& state) {
  constexpr int64_t kHeadDim = 128;
  const int64_t heads = state.range(0);
  const int64_t kv_heads = state.range(1);
  const int64_t block = state.range(2);
  const int64_t past = state.range(3);
  const auto ctx = BestContext();
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
  const ConstMatrixView<bf16> past_rows(past_k.data(), past, kv_heads * kHeadDim);
  const PastTokens past_tokens{past_rows, past_rows};
  const AttentionBlock one{rows, {&past_tokens, 1}, false};
  args.blocks = {&one, 1};
  while (state.KeepRunning()) {
    const absl::Status status = Attention(*ctx, args, {out.data(), block, heads * kHeadDim});
    if (!status.ok()) state.SkipWithError(std::string(status.message()).c_str());
  }
  Report(state, 4.0 * static_cast<double>(heads * kHeadDim * block * (block + past)), ctx->product_isa());
}

// Arguments: tokens, columns of the result.
void BM_SiluMul(benchmark::State& state) {
  const int64_t tokens = state.range(0);
  const int64_t n = state.range(1);
  const auto ctx = BestContext();
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
  const bool vnni = DetectVnni(DetectCpuIsa());
  for (const Mode mode : {Mode::kW4A16, Mode::kInt8}) {
    const int64_t m = static_cast<int64_t>(mode);
    for (const int64_t tokens : {1, 2, 4, 8, 18, 32, 258, 516, 2306}) {
      bench->Args({2048, 2048, tokens, best, m});
      bench->Args({2048, 11008, tokens, best, m});
    }
    // The bundled model's widths.
    for (const int64_t tokens : {1, 18, 258}) {
      bench->Args({2048, 512, tokens, best, m});
      bench->Args({512, 1024, tokens, best, m});
    }
    for (int64_t isa = 0; isa < best; ++isa) {
      bench->Args({2048, 2048, 1, isa, m});
      bench->Args({2048, 2048, 258, isa, m});
    }
  }
  if (!vnni) return;
  for (const int64_t tokens : {1, 258}) {
    bench->Args({2048, 2048, tokens, best, static_cast<int64_t>(Mode::kInt8NoVnni)});
  }
}

void LayerShapes(benchmark::internal::Benchmark* bench) {
  for (const Mode mode : {Mode::kW4A16, Mode::kInt8}) {
    for (const int64_t tokens : {1, 8, 258, 2306}) bench->Args({tokens, static_cast<int64_t>(mode)});
  }
}

void PrintLimits() {
  const CpuIsa isa = DetectCpuIsa();
  const CpuIsa product_isa = BestContext()->product_isa();
  const bool vnni = DetectVnni(isa);
  constexpr int64_t kStreamBytes = int64_t{256} << 20;
  std::printf(
      "%s%s, one thread: memory read %.1f GB/s (of 256 MiB), %s products %.0f GFLOP/s, int8 products %.0f "
      "G/s, "
      "in blocks of 16 with a scale %.0f G/s\n",
      std::string(CpuIsaName(product_isa)).c_str(), vnni ? " vnni" : "",
      MeasureReadBandwidth(kStreamBytes) / 1e9, product_isa == CpuIsa::kAvx512Bf16 ? "bf16" : "f32",
      MeasurePeakFlops(product_isa) / 1e9, MeasurePeakInt8(isa, vnni) / 1e9,
      MeasureBlockInt8(isa, vnni) / 1e9);
  std::fflush(stdout);
}

BENCHMARK(BM_LayerLinears)->Apply(LayerShapes)->Unit(benchmark::kMillisecond);
BENCHMARK(BM_Nvfp4)->Apply(Nvfp4Shapes)->Unit(benchmark::kMicrosecond);
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

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  lancet::PrintLimits();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
