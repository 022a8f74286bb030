// Seconds per stage and per denoise step of the engine: loading a checkpoint and a whole picture on it, and
// the parts of a model of the release's sizes with random weights made in memory. One rank, in this process.

#include <algorithm>
#include <cstdint>
#include <fstream>
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
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "bench/cpu_model.h"
#include "bench/cuda_model.h"
#include "bench/limits.h"
#include "common/checkpoint.h"
#include "common/checkpoint_flags.h"
#include "common/status_macros.h"
#include "coordinator/request/plan_builder.h"
#include "kernels/kernel_context.h"
#include "worker/collective/local_collective.h"
#include "worker/engine/engine.h"
#include "worker/model/vae/vae_encoder.h"

ABSL_FLAG(
    std::string, device, "cpu",
    "cpu, or cuda: the whole release-sized model with random weights on a CUDA device, without a checkpoint");
ABSL_FLAG(std::string, mode, "w4a16", "how Linears are multiplied: w4a16 or w4a8");
ABSL_FLAG(std::string, head, "bf16", "of parts: the output head as bf16 or int8");
ABSL_FLAG(std::string, block_scales, "bf16", "of parts in w4a8_int8: scales of blocks as bf16 or e4m3");
ABSL_FLAG(int, threads, 1, "compute threads");
ABSL_FLAG(int, steps, 30, "denoise steps of the picture on --model_dir; 0: none, load only");
ABSL_FLAG(int, repetitions, 3, "runs to take the median (of pictures) or the least (of parts) of");
ABSL_FLAG(std::vector<std::string>, parts,
          std::vector<std::string>({"step", "prefill", "decode", "vae", "vit"}),
          "what is measured at the release's sizes with random weights: step, prefill, decode, vae, vit; "
          "empty for none");
ABSL_FLAG(std::vector<std::string>, sides, std::vector<std::string>({"256", "768"}),
          "sides of the square pictures for step and vae, multiples of 16 up to 1024");
ABSL_FLAG(int, layers, 1, "layers of the trunk that are made and measured, 1 to 36");
ABSL_FLAG(std::string, clock, "wall",
          "of parts: wall, or cpu: the calling thread's processor time, for machines that do other work");
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
  LANCET_ASSIGN_OR_RETURN(options.linears.mode,
                          ParseLinearMode(absl::GetFlag(FLAGS_mode), /*on_cuda=*/false));
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

// --- Loading. ---

// From a cold process to the first iteration, beside reading the trunk's file once; both find it in the page
// cache if the checks have just read it.
absl::Status BenchLoad() {
  LANCET_ASSIGN_OR_RETURN(const CheckpointPaths paths, ResolveCheckpoint(CheckpointPathsFromFlags()));
  double read_seconds = 0;
  int64_t bytes = 0;
  for (int round = 0; round < 2; ++round) {  // the first brings it into the cache
    std::ifstream file(paths.trunk, std::ios::binary);
    std::vector<char> buffer(size_t{1} << 20);
    bytes = 0;
    const double begin = BenchSeconds(BenchClock::kWall);
    while (file.read(buffer.data(), static_cast<std::streamsize>(buffer.size())) || file.gcount() > 0) {
      bytes += file.gcount();
    }
    read_seconds = BenchSeconds(BenchClock::kWall) - begin;
  }
  const ProcessMemory before = ReadProcessMemory();
  const double start = BenchSeconds(BenchClock::kWall);
  LANCET_ASSIGN_OR_RETURN(auto checkpoint, Checkpoint::Open(paths));
  const double opened = BenchSeconds(BenchClock::kWall);
  EngineOptions options;
  options.threads = absl::GetFlag(FLAGS_threads);
  LANCET_ASSIGN_OR_RETURN(options.linears.mode,
                          ParseLinearMode(absl::GetFlag(FLAGS_mode), /*on_cuda=*/false));
  LANCET_ASSIGN_OR_RETURN(const auto engine, Engine::Load(*checkpoint, options));
  checkpoint.reset();
  const double loaded = BenchSeconds(BenchClock::kWall);
  const ProcessMemory after = ReadProcessMemory();
  LANCET_ASSIGN_OR_RETURN(const auto collective, SingleRankCollective::Create(engine->collective_capacity()));
  LANCET_RETURN_IF_ERROR(engine->Attach(collective.get()));
  LANCET_RETURN_IF_ERROR(engine->WarmUp());
  const double warm = BenchSeconds(BenchClock::kWall);
  std::cout << absl::StrFormat(
      "load: reading the trunk's %.2f GB takes %.2f s; checks %.2f s, weights %.2f s (together %.1f times "
      "reading), first request through every stage %.2f s; resident then %.2f GB, at most %.2f GB while "
      "loading\n",
      static_cast<double>(bytes) * 1e-9, read_seconds, opened - start, loaded - opened,
      (loaded - start) / read_seconds, warm - loaded,
      static_cast<double>(after.resident - before.resident) * 1e-9, static_cast<double>(after.peak) * 1e-9);
  return absl::OkStatus();
}

absl::Status BenchCpu() {
  if (!CheckpointPathsFromFlags().model_dir.empty()) {
    LANCET_RETURN_IF_ERROR(BenchLoad());
    if (absl::GetFlag(FLAGS_steps) > 0) LANCET_RETURN_IF_ERROR(BenchPicture());
  }
  CpuModelBenchOptions options;
  options.threads = absl::GetFlag(FLAGS_threads);
  options.repetitions = absl::GetFlag(FLAGS_repetitions);
  options.layers = absl::GetFlag(FLAGS_layers);
  options.sides = absl::GetFlag(FLAGS_sides);
  options.parts = absl::GetFlag(FLAGS_parts);
  LANCET_ASSIGN_OR_RETURN(options.clock, ParseBenchClock(absl::GetFlag(FLAGS_clock)));
  LANCET_ASSIGN_OR_RETURN(options.mode, ParseLinearMode(absl::GetFlag(FLAGS_mode), /*on_cuda=*/false));
  LANCET_ASSIGN_OR_RETURN(options.head, ParseHeadForm(absl::GetFlag(FLAGS_head)));
  LANCET_ASSIGN_OR_RETURN(options.e4m3_scales, ParseBlockScales(absl::GetFlag(FLAGS_block_scales)));
  if (options.mode != LinearMode::kW4A16 && options.mode != LinearMode::kW4A8Int8 && !options.parts.empty()) {
    return absl::InvalidArgumentError("--parts: the mode is w4a16 or w4a8_int8");
  }
  if (options.layers < 1 || options.layers > 36 || options.repetitions < 1) {
    return absl::InvalidArgumentError("--layers is 1 to 36, --repetitions 1 or more");
  }
  return BenchCpuModel(options);
}

}  // namespace
}  // namespace lancet

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage(
      "engine_bench [--model_dir models/demo [--steps N]] [--threads N] [--layers N] [--sides 256,768] "
      "[--parts step,prefill,decode,vae,vit] [--mode w4a16|w4a8] [--head bf16|int8]\n"
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
  if (const absl::Status status = lancet::BenchCpu(); !status.ok()) {
    std::cerr << "engine_bench: " << status << "\n";
    return 1;
  }
  return 0;
}
