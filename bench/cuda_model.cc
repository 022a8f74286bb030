#include "bench/cuda_model.h"

#include <algorithm>
#include <cstdint>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "bench/random_model.h"
#include "common/status_macros.h"
#include "kernels/cuda/cuda_context.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/embedding.h"
#include "kernels/cuda/few_rows_linear.h"
#include "kernels/cuda/host_array.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/row_ops.h"
#include "kernels/cuda/sampler_ops.h"
#include "worker/collective/device/device_collective.h"
#include "worker/cuda/cuda_graphs.h"
#include "worker/cuda/cuda_pass.h"
#include "worker/cuda/cuda_trunk.h"
#include "worker/cuda/cuda_vae_decoder.h"
#include "worker/loader/device_shapes.h"
#include "worker/loader/shard_plan.h"
#include "worker/model/latent_embedding.h"

namespace lancet {
namespace {

constexpr int64_t kPrefix = 64;  // tokens of a prompt with its template
constexpr int64_t kMaxLatents = 4096;
constexpr int kGuidedSteps = 26;
constexpr int kPlainSteps = 4;
constexpr absl::Duration kTimeout = absl::Seconds(60);

double Milliseconds(absl::Time start) { return absl::ToDoubleMilliseconds(absl::Now() - start); }

// Leaves the sums over the ranks out: what a pass would take if they cost nothing.
class NoSums final : public DeviceCollective {
 public:
  NoSums(const CudaContext& ctx, Collective* host, void* scratch)
      : DeviceCollective(ctx, host), scratch_(scratch) {}
  std::string name() const override { return "no sums"; }
  absl::StatusOr<void*> NextPartials(const RowSum& /*sum*/) override { return scratch_; }
  absl::Status AddSums(const RowSum& sum, bf16* x, const cuda::RowNorm& norm, cudaStream_t stream) override {
    return Normalise(sum, x, norm, stream);
  }
  bool lanes_overlap() const override { return true; }
  absl::Status AllGather(const void* /*mine*/, void* /*all*/, int64_t /*bytes*/) override {
    return absl::OkStatus();
  }
  absl::Status Align() override { return absl::OkStatus(); }

 private:
  void EndPending() override {}
  void* const scratch_;
};

class ModelBench {
 public:
  // `host` connects the ranks; null: one rank.
  static absl::StatusOr<std::unique_ptr<ModelBench>> Create(const CudaModelBenchOptions& options,
                                                            Collective* host) {
    auto bench = std::make_unique<ModelBench>();
    bench->options_ = options;
    const ModelConfig& config = bench->config_ = ReleaseConfig();
    const int rank = host != nullptr ? host->rank() : 0;
    const int world_size = host != nullptr ? host->world_size() : 1;
    LANCET_ASSIGN_OR_RETURN(bench->ctx_, CudaContext::Create(rank % std::max(1, CudaDeviceCount())));
    LANCET_ASSIGN_OR_RETURN(const ShardPlan plan, MakeShardPlan(config, rank, world_size));
    LANCET_ASSIGN_OR_RETURN(bench->shard_, ShardConfig(config, plan));
    const auto model = RandomModel::Trunk(config);
    const CudaProducts products = options.fp8 ? CudaProducts::kFp8 : CudaProducts::kBf16;
    const absl::Time start = absl::Now();
    LANCET_ASSIGN_OR_RETURN(
        CudaTrunkWeights weights,
        CudaTrunkWeights::Load(*bench->ctx_, *model, config, plan, products, /*with_head=*/true));
    if (rank == 0) {
      std::cout << absl::StrFormat("%s, %s, weights %.2f GB on the device, loaded in %.1f s\n",
                                   bench->ctx_->description(), options.fp8 ? "w4a8" : "w4a16",
                                   static_cast<double>(weights.resident_bytes()) * 1e-9,
                                   Milliseconds(start) * 1e-3);
    }
    LANCET_ASSIGN_OR_RETURN(bench->trunk_, CudaTrunk::Create(*bench->ctx_, bench->shard_, std::move(weights),
                                                             products, 2 * (kMaxLatents + 2), 64));
    bench->graphs_.emplace(*bench->ctx_, /*limit=*/16, kTimeout);
    const auto vae = RandomModel::VaeDecoder();
    VaeDecoderOptions vae_options;
    vae_options.max_latents = kMaxLatents;
    bench->vae_layers_ = std::make_unique<CudaVaeLayers>(*bench->ctx_, bench->trunk_->matmul());
    LANCET_ASSIGN_OR_RETURN(bench->vae_,
                            CudaVaeDecoder::Load(*bench->ctx_, *bench->vae_layers_, *vae, vae_options));
    const CudaContext& ctx = *bench->ctx_;
    const LatentPositionTable table(config.hidden_size, config.max_latent_side);
    LANCET_ASSIGN_OR_RETURN(bench->table_, DeviceArray<bf16>::CopyOf(table.by_position(), ctx.stream()));
    LANCET_ASSIGN_OR_RETURN(bench->table_w_, DeviceArray<bf16>::CopyOf(table.by_position_w(), ctx.stream()));
    bench->positions_ = {bench->table_.data(), bench->table_w_.data(), config.max_latent_side,
                         table.extent_th()};
    const int64_t values = kMaxLatents * kLatentChannels;
    std::vector<bf16> noise(values);
    for (int64_t i = 0; i < values; ++i)
      noise[i] = ToBf16(static_cast<float>(i * 2654435761u % 4001) * 0.001f - 2.0f);
    LANCET_ASSIGN_OR_RETURN(bench->latents_, DeviceArray<bf16>::CopyOf(noise, ctx.stream()));
    LANCET_ASSIGN_OR_RETURN(bench->velocity_, DeviceArray<bf16>::Create(2 * values));
    LANCET_ASSIGN_OR_RETURN(bench->normed_, DeviceArray<bf16>::Create(2 * kMaxLatents * config.hidden_size));
    LANCET_ASSIGN_OR_RETURN(
        bench->time_,
        DeviceArray<bf16>::CopyOf(absl::MakeConstSpan(noise).subspan(0, config.hidden_size), ctx.stream()));
    LANCET_ASSIGN_OR_RETURN(bench->norms_, DeviceArray<double>::Create(2 * cuda::kNormBlocks));
    LANCET_ASSIGN_OR_RETURN(bench->clean_, DeviceArray<float>::Create(values));
    LANCET_ASSIGN_OR_RETURN(bench->logits_, DeviceArray<bf16>::Create(8 * config.vocab_size));
    LANCET_ASSIGN_OR_RETURN(bench->best_, DeviceArray<cuda::ArgmaxPair>::Create(8 * cuda::kArgmaxBlocks));
    LANCET_ASSIGN_OR_RETURN(bench->picked_, DeviceArray<int32_t>::Create(8));
    LANCET_RETURN_IF_ERROR(ctx.Wait(kTimeout));
    if (world_size > 1) LANCET_RETURN_IF_ERROR(bench->JoinGroup(host));
    return bench;
  }

  absl::Status Run() {
    LANCET_RETURN_IF_ERROR(Peaks());
    LANCET_RETURN_IF_ERROR(Pictures());
    for (const int sequences : {1, 2, 4, 8}) LANCET_RETURN_IF_ERROR(Answers(sequences));
    if (!options_.compare) return absl::OkStatus();
    CudaTrunkChoices choices;
    choices.gated_product = true;
    std::cout << "with the gated product\n";
    trunk_->set_choices(choices);
    LANCET_RETURN_IF_ERROR(Pictures());
    choices = {};
    if (options_.fp8) {
      choices.fast_fp8_sums = false;
      std::cout << "without fast sums\n";
      trunk_->set_choices(choices);
      LANCET_RETURN_IF_ERROR(Pictures());
    }
    choices = {};
    choices.side_streams = false;
    std::cout << "without side streams\n";
    trunk_->set_choices(choices);
    LANCET_RETURN_IF_ERROR(Pictures());
    trunk_->set_choices({});
    std::cout << "without graphs\n";
    replay_ = false;
    LANCET_RETURN_IF_ERROR(Pictures());
    return Answers(1);
  }

  // As the ranks of a group are compared: fewer sizes, nothing printed. Without sums if not `with_sums`.
  absl::StatusOr<CudaModelTimes> Measure(bool with_sums) {
    print_ = false;
    times_.clear();
    if (group_ != nullptr) {
      LANCET_RETURN_IF_ERROR(
          trunk_->Attach(with_sums ? group_.get() : no_sums_.get(), options_.f32_partials));
    }
    for (const int64_t side : {256, 768}) LANCET_RETURN_IF_ERROR(Picture(side / kPixelsPerLatent));
    for (const int sequences : {1, 8}) LANCET_RETURN_IF_ERROR(Answers(sequences));
    return times_;
  }
  std::string transport() const { return group_ != nullptr ? group_->name() : "one rank"; }

 private:
  absl::Status JoinGroup(Collective* host) {
    DeviceCollectiveOptions options;
    options.transport = options_.transport;
    options.share = options_.share;
    options.lane_bytes = trunk_->lane_bytes(options_.f32_partials);
    options.create_deadline = absl::Now() + kTimeout;
    LANCET_ASSIGN_OR_RETURN(group_, DeviceCollective::Create(*ctx_, host, options));
    ctx_->set_watch(group_.get());
    LANCET_ASSIGN_OR_RETURN(scratch_, DeviceArray<uint8_t>::Create(options.lane_bytes[1]));
    no_sums_ = std::make_unique<NoSums>(*ctx_, host, scratch_.data());
    LANCET_RETURN_IF_ERROR(vae_->ReserveShared(host->world_size()));
    return trunk_->Attach(group_.get(), options_.f32_partials);
  }

  double WeightsPerRow() const {
    const double h = static_cast<double>(config_.hidden_size);
    return static_cast<double>(config_.num_layers) *
           (h * (2 * h + 2.0 * static_cast<double>(config_.num_kv_heads * config_.head_dim)) +
            3 * h * static_cast<double>(config_.intermediate_size));
  }

  Positions Line(int64_t count) const {
    Positions positions;
    for (int64_t i = 0; i < count; ++i) {
      for (auto* axis : {&positions.t, &positions.h, &positions.w})
        axis->push_back(static_cast<int32_t>(i % 100));
    }
    return positions;
  }

  absl::Status Prepare(const CudaPass& pass) {
    const std::vector<int32_t> ids(pass.und_rows(), 7);
    cuda::StepScalars scalars;
    scalars.dt = 0.01f;
    return trunk_->Prepare(pass, {ids, {&scalars, 1}}, kTimeout);
  }

  // By replaying a captured graph, once there is one.
  absl::Status Run(int64_t what, absl::FunctionRef<absl::Status()> enqueue) {
    if (!replay_) return enqueue();
    CudaGraphs::Key key;
    trunk_->AppendShape(key);
    key.push_back(what);
    return graphs_->Run(key, enqueue);
  }

  absl::Status Embed(int64_t und_rows) {
    return CudaStatus(cuda::GatherRows(trunk_->weights().embed_tokens.data(), trunk_->tables().ids(),
                                       und_rows, config_.hidden_size, trunk_->stream_rows(), ctx_->stream()),
                      "embedding");
  }

  // A guided pair, or one conditional branch, and the sampler behind it.
  absl::Status Step(int64_t side, CudaKvCache& conditional, CudaKvCache* unconditional) {
    const int64_t n = side * side;
    const int64_t hidden = config_.hidden_size;
    CudaPass pass;
    const Positions positions = Line(n + 2);
    pass.AddLatents(&conditional, positions, /*append=*/false);
    if (unconditional != nullptr) pass.AddLatents(unconditional, positions, /*append=*/false);
    LANCET_RETURN_IF_ERROR(Prepare(pass));
    return Run(side, [&]() -> absl::Status {
      LANCET_RETURN_IF_ERROR(Embed(pass.und_rows()));
      bf16* const gen = trunk_->stream_rows(pass.und_rows());
      const cuda::StepScalars* const scalars = trunk_->tables().scalars();
      LANCET_RETURN_IF_ERROR(trunk_->Dense(trunk_->weights().vae2llm, latents_.data(), n, gen));
      LANCET_CUDA_RETURN_IF_ERROR(cuda::AddTimeAndPosition(time_.data(), &scalars->step, positions_, n, side,
                                                           hidden, gen, ctx_->stream()));
      const bool guided = unconditional != nullptr;
      if (guided) {
        LANCET_CUDA_RETURN_IF_ERROR(cudaMemcpyAsync(gen + n * hidden, gen,
                                                    static_cast<size_t>(n * hidden) * sizeof(bf16),
                                                    cudaMemcpyDeviceToDevice, ctx_->stream()));
      }
      LANCET_RETURN_IF_ERROR(trunk_->Forward(pass));
      cuda::RowOutput output;
      output.bf16_rows = normed_.data();
      LANCET_CUDA_RETURN_IF_ERROR(cuda::RmsNorm(gen, hidden, trunk_->weights().gen_norm.data(), 1e-6f,
                                                pass.gen_rows(), hidden, output, ctx_->stream()));
      LANCET_RETURN_IF_ERROR(
          trunk_->Dense(trunk_->weights().llm2vae, normed_.data(), pass.gen_rows(), velocity_.data()));
      const int64_t values = n * kLatentChannels;
      if (guided) {
        LANCET_CUDA_RETURN_IF_ERROR(cuda::ApplyGuidance(4.0f, velocity_.data() + values, values,
                                                        velocity_.data(), norms_.data(), ctx_->stream()));
      }
      return CudaStatus(cuda::EulerStep(velocity_.data(), scalars, values, latents_.data(), ctx_->stream()),
                        "Euler step");
    });
  }

  // What the device reaches at best: floors are these rates.
  absl::Status Peaks() {
    constexpr int64_t kSide = 8192;
    constexpr int kRuns = 10;
    LANCET_ASSIGN_OR_RETURN(const auto a, DeviceArray<uint16_t>::Create(kSide * kSide));
    LANCET_ASSIGN_OR_RETURN(const auto b, DeviceArray<uint16_t>::Create(kSide * kSide));
    LANCET_ASSIGN_OR_RETURN(const auto y, DeviceArray<uint16_t>::Create(kSide * kSide));
    LANCET_ASSIGN_OR_RETURN(const auto factors, DeviceArray<float>::Create(kSide));
    // Ordinary numbers, as bf16 and as E4M3: the speed depends on the bits that flip.
    std::vector<uint16_t> numbers(kSide * kSide);
    uint32_t state = 1;
    for (uint16_t& bits : numbers) {
      state = state * 1664525u + 1013904223u;
      bits = static_cast<uint16_t>((state >> 16 & 0x807fu) | ((123u + (state >> 9) % 4u) << 7));
    }
    for (const auto* array : {&a, &b}) {
      LANCET_CUDA_RETURN_IF_ERROR(cudaMemcpyAsync(array->data(), numbers.data(), numbers.size() * 2,
                                                  cudaMemcpyHostToDevice, ctx_->stream()));
    }
    LANCET_CUDA_RETURN_IF_ERROR(cudaMemsetAsync(factors.data(), 0x3c, factors.bytes(), ctx_->stream()));
    MatmulShape shape;
    shape.tokens = shape.rows = shape.cols = shape.x_stride = shape.y_stride = kSide;
    MatmulArgs args;
    args.x = a.data();
    args.w = b.data();
    args.y = y.data();
    if (options_.fp8) {
      shape.input = MatmulInput::kFp8;
      args.x_scales = args.w_scales = factors.data();
    }
    const auto seconds = [&](absl::FunctionRef<absl::Status()> op) -> absl::StatusOr<double> {
      LANCET_RETURN_IF_ERROR(op());
      LANCET_RETURN_IF_ERROR(ctx_->Wait(kTimeout));
      const absl::Time start = absl::Now();
      for (int run = 0; run < kRuns; ++run) LANCET_RETURN_IF_ERROR(op());
      LANCET_RETURN_IF_ERROR(ctx_->Wait(kTimeout));
      return Milliseconds(start) * 1e-3 / kRuns;
    };
    MatmulPlans plans(*ctx_);
    LANCET_ASSIGN_OR_RETURN(const double product, seconds([&] { return plans.Run(shape, args); }));
    LANCET_ASSIGN_OR_RETURN(const double copy, seconds([&] {
                              return CudaStatus(cudaMemcpyAsync(a.data(), b.data(), a.bytes(),
                                                                cudaMemcpyDeviceToDevice, ctx_->stream()),
                                                "copy");
                            }));
    rate_ = 2.0 * kSide * kSide * kSide / product;
    bandwidth_ = 2.0 * static_cast<double>(a.bytes()) / copy;
    std::cout << absl::StrFormat("%s product of 8192^3: %.0f TFLOP/s; copy: %.0f GB/s read + written\n",
                                 options_.fp8 ? "E4M3" : "bf16", rate_ * 1e-12, bandwidth_ * 1e-9);
    return absl::OkStatus();
  }

  absl::Status Pictures() {
    for (const int64_t side : {256, 768, 1024}) LANCET_RETURN_IF_ERROR(Picture(side / kPixelsPerLatent));
    return absl::OkStatus();
  }

  absl::Status Picture(int64_t side) {
    const int64_t n = side * side;
    const int64_t kv_cols = shard_.num_kv_heads * config_.head_dim;
    std::vector<double> pairs;
    std::vector<double> whole;
    std::vector<double> decodes;
    for (int repetition = 0; repetition <= options_.repetitions; ++repetition) {
      LANCET_ASSIGN_OR_RETURN(CudaKvCache conditional,
                              CudaKvCache::Create(config_.num_layers, kPrefix + n + 2, kv_cols));
      LANCET_ASSIGN_OR_RETURN(CudaKvCache unconditional,
                              CudaKvCache::Create(config_.num_layers, kPrefix + n + 2, kv_cols));
      const absl::Time start = absl::Now();
      CudaPass prefill;
      prefill.AddText(&conditional, Line(kPrefix), 0, kPrefix);
      prefill.AddText(&unconditional, Line(kPrefix), 0, kPrefix);
      LANCET_RETURN_IF_ERROR(Prepare(prefill));
      LANCET_RETURN_IF_ERROR(Embed(prefill.und_rows()));
      LANCET_RETURN_IF_ERROR(trunk_->Forward(prefill));
      prefill.AdvanceCaches();
      // The engine waits for no step; the two waits here are for the clock.
      LANCET_RETURN_IF_ERROR(ctx_->Wait(kTimeout));
      const absl::Time loop = absl::Now();
      for (int step = 0; step < kGuidedSteps; ++step) {
        LANCET_RETURN_IF_ERROR(Step(side, conditional, &unconditional));
      }
      LANCET_RETURN_IF_ERROR(ctx_->Wait(kTimeout));
      // The first picture makes plans and graphs.
      if (repetition > 0) pairs.push_back(Milliseconds(loop) / kGuidedSteps);
      for (int step = 0; step < kPlainSteps; ++step) {
        LANCET_RETURN_IF_ERROR(Step(side, conditional, nullptr));
      }
      LANCET_RETURN_IF_ERROR(ctx_->Wait(kTimeout));
      const absl::Time decode = absl::Now();
      LANCET_CUDA_RETURN_IF_ERROR(
          cudaMemsetAsync(clean_.data(), 0, static_cast<size_t>(clean_.bytes()), ctx_->stream()));
      LANCET_RETURN_IF_ERROR(group_ != nullptr
                                 ? vae_->DecodeShared(clean_.data(), side, side, *group_).status()
                                 : vae_->DecodePicture(clean_.data(), side, side).status());
      if (repetition > 0) {
        decodes.push_back(Milliseconds(decode));
        whole.push_back(Milliseconds(start));
      }
    }
    for (auto* values : {&pairs, &whole, &decodes}) std::sort(values->begin(), values->end());
    const double rows = 2.0 * static_cast<double>(n + 2);
    const double attention = 4.0 * rows * static_cast<double>(n + 2 + kPrefix) *
                             static_cast<double>(config_.num_heads * config_.head_dim * config_.num_layers);
    const double flop = 2.0 * WeightsPerRow() * rows + attention;
    const double pair = pairs[pairs.size() / 2];
    const std::string size = absl::StrCat(side * kPixelsPerLatent, "^2");
    times_.push_back({absl::StrCat("pair ", size), pair});
    times_.push_back({absl::StrCat("VAE decode ", size), decodes[decodes.size() / 2]});
    if (!print_) return absl::OkStatus();
    std::cout << absl::StrFormat(
        "%4d x %-4d pair %7.2f ms (floor %6.2f ms, %3.0f TFLOP/s reached), picture %7.3f s, "
        "decode %6.2f ms\n",
        side * kPixelsPerLatent, side * kPixelsPerLatent, pair, flop / rate_ * 1e3, flop / pair * 1e-9,
        whole[whole.size() / 2] * 1e-3, decodes[decodes.size() / 2]);
    return absl::OkStatus();
  }

  absl::Status Answers(int sequences) {
    constexpr int64_t kKeys = 700;
    const int64_t kv_cols = shard_.num_kv_heads * config_.head_dim;
    std::vector<CudaKvCache> caches;
    for (int i = 0; i < sequences; ++i) {
      LANCET_ASSIGN_OR_RETURN(caches.emplace_back(),
                              CudaKvCache::Create(config_.num_layers, kKeys + 300, kv_cols));
      LANCET_CUDA_RETURN_IF_ERROR(cudaMemsetAsync(
          caches.back().data(), 0, static_cast<size_t>(config_.num_layers * caches.back().layer_stride()) * 2,
          ctx_->stream()));
      caches.back().Advance(kKeys);
    }
    LANCET_ASSIGN_OR_RETURN(const auto ids, HostArray<int32_t>::Create(sequences));
    std::vector<double> times;
    for (int token = 0; token < 200; ++token) {
      const absl::Time begin = absl::Now();
      CudaPass pass;
      for (CudaKvCache& cache : caches) pass.AddAnswer(&cache, static_cast<int32_t>(kKeys + token));
      LANCET_RETURN_IF_ERROR(Prepare(pass));
      const auto enqueue = [&]() -> absl::Status {
        LANCET_RETURN_IF_ERROR(Embed(sequences));
        LANCET_RETURN_IF_ERROR(trunk_->Forward(pass));
        cuda::FewRowsArgs head;
        head.x = trunk_->stream_rows();
        head.x_stride = config_.hidden_size;
        head.tokens = sequences;
        head.norm = trunk_->weights().und_norm.data();
        head.eps = 1e-6f;
        head.dense = trunk_->weights().head.data();
        head.rows = trunk_->weights().head_rows.size();
        head.cols = config_.hidden_size;
        head.y = logits_.data();
        head.y_stride = head.rows;
        LANCET_CUDA_RETURN_IF_ERROR(cuda::FewRowsLinear(head, ctx_->stream()));
        return CudaStatus(
            cuda::Argmax(logits_.data(), sequences, head.rows, std::min<int64_t>(head.rows, 151665),
                         best_.data(), picked_.data(), ctx_->stream()),
            "argmax");
      };
      LANCET_RETURN_IF_ERROR(Run(-sequences, enqueue));
      LANCET_RETURN_IF_ERROR(
          picked_.CopyTo(absl::MakeSpan(ids.data(), static_cast<size_t>(sequences)), ctx_->stream()));
      LANCET_RETURN_IF_ERROR(ctx_->Wait(kTimeout));
      pass.AdvanceCaches();
      if (token > 20) times.push_back(Milliseconds(begin));
    }
    std::sort(times.begin(), times.end());
    const double median = times[times.size() / 2];
    times_.push_back(
        {absl::StrCat("answers, ", sequences, sequences > 1 ? " sequences" : " sequence"), median});
    if (!print_) return absl::OkStatus();
    // Codes and bf16 scales of one expert, and the output head.
    const double bytes =
        WeightsPerRow() * 0.625 + 2.0 * static_cast<double>(config_.vocab_size * config_.hidden_size);
    std::cout << absl::StrFormat(
        "answers, %d sequences after %d tokens: %.3f ms a token, %.0f tokens/s (floor %.3f ms)\n", sequences,
        kKeys, median, sequences / median * 1e3, bytes / bandwidth_ * 1e3);
    return absl::OkStatus();
  }

  CudaModelBenchOptions options_;
  bool replay_ = true;
  double rate_ = 0;       // FLOP/s
  double bandwidth_ = 0;  // bytes/s
  ModelConfig config_;
  ModelConfig shard_;  // what this rank owns of it
  std::unique_ptr<CudaContext> ctx_;
  std::unique_ptr<DeviceCollective> group_, no_sums_;
  DeviceArray<uint8_t> scratch_;
  std::unique_ptr<CudaTrunk> trunk_;
  std::optional<CudaGraphs> graphs_;
  std::unique_ptr<CudaVaeLayers> vae_layers_;
  std::unique_ptr<CudaVaeDecoder> vae_;
  DeviceArray<bf16> table_, table_w_, latents_, velocity_, normed_, time_, logits_;
  cuda::PositionTable positions_;
  DeviceArray<int32_t> picked_;
  DeviceArray<float> clean_;
  DeviceArray<double> norms_;
  DeviceArray<cuda::ArgmaxPair> best_;
  bool print_ = true;
  CudaModelTimes times_;
};

}  // namespace

absl::Status BenchCudaModel(const CudaModelBenchOptions& options) {
  LANCET_ASSIGN_OR_RETURN(const auto bench, ModelBench::Create(options, nullptr));
  return bench->Run();
}

absl::StatusOr<CudaModelTimes> MeasureCudaModel(const CudaModelBenchOptions& options) {
  LANCET_ASSIGN_OR_RETURN(const auto bench, ModelBench::Create(options, nullptr));
  return bench->Measure(/*with_sums=*/true);
}

absl::StatusOr<CudaRankTimes> MeasureCudaRank(const CudaModelBenchOptions& options, Collective* host) {
  LANCET_ASSIGN_OR_RETURN(const auto bench, ModelBench::Create(options, host));
  CudaRankTimes times;
  times.transport = bench->transport();
  LANCET_ASSIGN_OR_RETURN(times.with_sums, bench->Measure(/*with_sums=*/true));
  LANCET_ASSIGN_OR_RETURN(times.without_sums, bench->Measure(/*with_sums=*/false));
  return times;
}

}  // namespace lancet
