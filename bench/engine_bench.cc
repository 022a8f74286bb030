// Seconds per stage and per denoise step of the engine: a whole picture on a checkpoint, and one trunk layer
// of the release's dimensions with random weights made in memory. Medians over repetitions, one rank, in this
// process.

#include <algorithm>
#include <cstdint>
#include <iostream>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "bench/cuda_model.h"
#include "bench/release_layer.h"
#include "common/checkpoint.h"
#include "common/checkpoint_flags.h"
#include "common/status_macros.h"
#include "coordinator/request/plan_builder.h"
#include "kernels/kernel_context.h"
#include "worker/collective/local_collective.h"
#include "worker/engine/engine.h"
#include "worker/loader/shard_plan.h"
#include "worker/model/pass.h"
#include "worker/model/transformer.h"
#include "worker/model/vae/vae_encoder.h"

ABSL_FLAG(
    std::string, device, "cpu",
    "cpu, or cuda: the whole release-sized model with random weights on a CUDA device, without a checkpoint");
ABSL_FLAG(std::string, mode, "w4a16", "how Linears are multiplied on a CUDA device: w4a16 or w4a8");
ABSL_FLAG(int, threads, 1, "compute threads");
ABSL_FLAG(int, steps, 30, "denoise steps of the picture");
ABSL_FLAG(int, repetitions, 3, "pictures, and passes through the layer, to take the median of");
ABSL_FLAG(
    std::vector<std::string>, layer_pixels, std::vector<std::string>({"256", "768"}),
    "sides of the square pictures whose guided pair goes through the release-sized layer; empty for none");
ABSL_FLAG(int, ranks, 1, "on CUDA devices: a group of so many processes beside one rank, 2 to 8");
ABSL_FLAG(std::string, transport, "auto",
          "between the devices of a group: peer (they read each other's memory), nccl, or auto: the first "
          "that works");
ABSL_FLAG(bool, share, true,
          "false: each sum over the ranks by one kernel, nothing fetched or handed over ahead");
ABSL_FLAG(bool, f32_partials, false, "partial sums of many rows between devices in f32 instead of bf16");
ABSL_FLAG(bool, compare, false, "with --device cuda: also without each of the things that make it fast");

namespace lancet {
namespace {

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// --- A picture on a checkpoint. ---

// A picture of the card's size to latents, with an encoder of its own; nothing for files without one.
absl::Status BenchEncode(const Checkpoint& checkpoint, int32_t height, int32_t width) {
  if (!checkpoint.vae().Contains("encoder.conv1.weight")) return absl::OkStatus();
  CpuOptions cpu;
  cpu.threads = absl::GetFlag(FLAGS_threads);
  LANCET_ASSIGN_OR_RETURN(const auto ctx, KernelContext::CreateCpu(cpu));
  ctx->BindCallingThread();
  LANCET_ASSIGN_OR_RETURN(const auto vae, VaeEncoder::Load(*ctx, checkpoint.vae()));
  std::mt19937 random(3);
  std::uniform_real_distribution<float> colour(-1.0f, 1.0f);
  std::vector<float> pixels(size_t{3} * height * width);
  for (float& p : pixels) p = colour(random);
  std::vector<double> seconds;
  for (int repetition = 0; repetition <= absl::GetFlag(FLAGS_repetitions); ++repetition) {
    const absl::Time start = absl::Now();
    LANCET_RETURN_IF_ERROR(vae->Encode(*ctx, pixels, height, width).status());
    // The first picture warms up.
    if (repetition > 0) seconds.push_back(absl::ToDoubleSeconds(absl::Now() - start));
  }
  std::cout << absl::StrFormat("  %-8s %8.4f s\n", "encode", Median(seconds));
  return absl::OkStatus();
}

absl::Status BenchPicture() {
  LANCET_ASSIGN_OR_RETURN(const CheckpointPaths paths, ResolveCheckpoint(CheckpointPathsFromFlags()));
  LANCET_ASSIGN_OR_RETURN(const auto checkpoint, Checkpoint::Open(paths));
  EngineOptions options;
  options.threads = absl::GetFlag(FLAGS_threads);
  const absl::Time load_start = absl::Now();
  LANCET_ASSIGN_OR_RETURN(const auto engine, Engine::Load(*checkpoint, options));
  const double load_seconds = absl::ToDoubleSeconds(absl::Now() - load_start);
  LANCET_ASSIGN_OR_RETURN(const auto collective, SingleRankCollective::Create(engine->collective_capacity()));
  LANCET_RETURN_IF_ERROR(engine->Attach(collective.get()));
  LANCET_RETURN_IF_ERROR(engine->WarmUp());

  LANCET_ASSIGN_OR_RETURN(auto tokenizer,
                          Tokenizer::Load({paths.vocab, paths.merges, paths.tokenizer_config}));
  LANCET_ASSIGN_OR_RETURN(const auto builder,
                          PlanBuilder::Create({checkpoint->config(), std::move(tokenizer)}));
  GenerateParams params;
  params.prompt = "a rocket in the top left, a panda in the top right, on a light blue background";
  params.width = checkpoint->card().default_size.width;
  params.height = checkpoint->card().default_size.height;
  params.sampler.num_steps = absl::GetFlag(FLAGS_steps);

  std::map<std::string, std::vector<double>> stages;
  for (int repetition = 0; repetition < absl::GetFlag(FLAGS_repetitions); ++repetition) {
    LANCET_ASSIGN_OR_RETURN(const RequestPlan plan, builder->Build(repetition + 1, params));
    LANCET_RETURN_IF_ERROR(engine->Admit(plan));
    std::vector<Work> work;
    for (size_t i = 0; i < plan.prefix.size(); ++i) {
      work.push_back({plan.request_id, WorkKind::kPrefill, static_cast<int32_t>(i), PreviewMethod::kNone});
    }
    for (int32_t step = 0; step < params.sampler.num_steps; ++step) {
      work.push_back({plan.request_id, WorkKind::kDenoise, step, PreviewMethod::kNone});
    }
    work.push_back({plan.request_id, WorkKind::kDecode, 0, PreviewMethod::kNone});
    std::map<std::string, double> sums;
    for (const Work& item : work) {
      LANCET_ASSIGN_OR_RETURN(const std::vector<WorkResult> results, engine->Iterate({item}));
      const char* stage = item.kind == WorkKind::kPrefill   ? "prefill"
                          : item.kind == WorkKind::kDenoise ? "denoise"
                                                            : "decode";
      sums[stage] += results[0].seconds;
      sums["total"] += results[0].seconds;
    }
    for (const auto& [stage, seconds] : sums) stages[stage].push_back(seconds);
    LANCET_RETURN_IF_ERROR(engine->Release(plan.request_id));
  }
  std::cout << absl::StrFormat("%s, %d x %d, %d steps, %s, load %.2f s\n", checkpoint->card().name,
                               params.width, params.height, params.sampler.num_steps, engine->device(),
                               load_seconds);
  LANCET_RETURN_IF_ERROR(BenchEncode(*checkpoint, params.height, params.width));
  for (const char* stage : {"prefill", "denoise", "decode", "total"}) {
    std::cout << absl::StrFormat("  %-8s %8.4f s\n", stage, Median(stages[stage]));
  }
  std::cout << absl::StrFormat("  a step   %8.4f s\n", Median(stages["denoise"]) / params.sampler.num_steps);
  return absl::OkStatus();
}

// --- One layer of the release's dimensions. ---

// A guided pair's target blocks over a prefix of 64 cached tokens each.
absl::Status BenchLayer() {
  const ModelConfig config = ReleaseLayerConfig(1);
  CpuOptions cpu;
  cpu.threads = absl::GetFlag(FLAGS_threads);
  LANCET_ASSIGN_OR_RETURN(const auto ctx, KernelContext::CreateCpu(cpu));
  ctx->BindCallingThread();
  LANCET_ASSIGN_OR_RETURN(const ShardPlan plan, MakeShardPlan(config, 0, 1));
  for (const std::string& side_text : absl::GetFlag(FLAGS_layer_pixels)) {
    int side = 0;
    if (!absl::SimpleAtoi(side_text, &side) || side < 16 || side > 2048) {
      return absl::InvalidArgumentError(absl::StrCat("--layer_pixels ", side_text, " is outside 16 to 2048"));
    }
    const int64_t latents = int64_t{side / kPixelsPerLatent} * (side / kPixelsPerLatent);
    const RandomStateDict dict = MakeRelease(config);
    LANCET_ASSIGN_OR_RETURN(TrunkWeights weights,
                            TrunkWeights::Load(*ctx, dict, config, plan, /*with_head=*/false));
    Transformer transformer(*ctx, config, plan, std::move(weights), 2 * (latents + 2));
    LANCET_ASSIGN_OR_RETURN(const auto collective,
                            SingleRankCollective::Create(transformer.reduce_capacity()));
    KvCache cache(1, 64, plan.kv_cols());
    cache.Advance(64);
    std::vector<int32_t> ids(latents + 2);
    for (size_t i = 0; i < ids.size(); ++i) ids[i] = 64 + static_cast<int32_t>(i % 64);
    Pass pass;
    pass.AddLatents(&cache, {ids, ids, ids}, /*append=*/false);
    pass.AddLatents(&cache, {ids, ids, ids}, /*append=*/false);
    pass.Finish();
    std::mt19937 random(2);
    std::normal_distribution<float> normal;
    std::vector<double> seconds;
    for (int repetition = 0; repetition <= absl::GetFlag(FLAGS_repetitions); ++repetition) {
      for (int64_t r = 0; r < pass.rows(); ++r) {
        for (int64_t c = 0; c < config.hidden_size; ++c)
          transformer.stream().row(r)[c] = ToBf16(normal(random));
      }
      const absl::Time start = absl::Now();
      LANCET_RETURN_IF_ERROR(transformer.Forward(pass, *collective, absl::Minutes(10)));
      // The first pass warms up.
      if (repetition > 0) seconds.push_back(absl::ToDoubleSeconds(absl::Now() - start));
    }
    const double weights_per_row =
        static_cast<double>(config.hidden_size) *
        (2.0 * config.hidden_size + 2.0 * plan.kv_cols() + 3.0 * config.intermediate_size);
    const double attention = 4.0 * 2 * static_cast<double>(latents + 2) * static_cast<double>(latents + 66) *
                             static_cast<double>(plan.q_cols());
    const double flop = 2.0 * weights_per_row * static_cast<double>(pass.rows()) + attention;
    const double median = Median(seconds);
    std::cout << absl::StrFormat(
        "release-sized layer, %d x %d pair (%d rows), %s: %.4f s, %.1f GFLOP/s; 36 layers %.2f s a step\n",
        side, side, pass.rows(), ctx->description(), median, flop / median * 1e-9, 36 * median);
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace lancet

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage(
      "engine_bench --model_dir models/demo [--threads N] [--steps N] [--layer_pixels 256,768]\n"
      "engine_bench --device cuda [--mode w4a16|w4a8] [--compare] [--ranks N]");
  absl::ParseCommandLine(argc, argv);
  if (absl::GetFlag(FLAGS_device) == "cuda") {
    lancet::CudaModelBenchOptions options;
    options.fp8 = absl::GetFlag(FLAGS_mode) == "w4a8";
    options.repetitions = absl::GetFlag(FLAGS_repetitions);
    options.compare = absl::GetFlag(FLAGS_compare);
    options.ranks = absl::GetFlag(FLAGS_ranks);
    options.f32_partials = absl::GetFlag(FLAGS_f32_partials);
    options.share = absl::GetFlag(FLAGS_share);
    const std::string transport = absl::GetFlag(FLAGS_transport);
    if (options.ranks < 1 || options.ranks > 8 ||
        (transport != "auto" && transport != "peer" && transport != "nccl")) {
      std::cerr << "engine_bench: --ranks is " << options.ranks << ", --transport " << transport
                << "; expected 1 to 8, and auto, peer or nccl\n";
      return 2;
    }
    options.transport = transport == "peer"   ? lancet::DeviceTransport::kPeerMemory
                        : transport == "nccl" ? lancet::DeviceTransport::kNccl
                                              : lancet::DeviceTransport::kAuto;
    const absl::Status status =
        options.ranks > 1 ? lancet::BenchCudaRanks(options) : lancet::BenchCudaModel(options);
    if (!status.ok()) {
      std::cerr << "engine_bench: " << status << "\n";
      return 1;
    }
    return 0;
  }
  for (const auto bench : {lancet::BenchPicture, lancet::BenchLayer}) {
    if (const absl::Status status = bench(); !status.ok()) {
      std::cerr << "engine_bench: " << status << "\n";
      return 1;
    }
  }
  return 0;
}
