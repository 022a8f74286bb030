// lancet-golden: drives the real engine through a folder of goldens and says how far from the oracle it is.

#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/strings/str_cat.h"
#include "common/checkpoint.h"
#include "common/checkpoint_flags.h"
#include "common/status_macros.h"
#include "tools/golden/cuda_stages.h"
#include "tools/golden/golden_against_cpu.h"
#include "tools/golden/golden_case.h"
#include "tools/golden/golden_runs.h"
#include "tools/golden/report.h"
#include "tools/requests/rank_group.h"

ABSL_FLAG(std::string, golden, "", "folder of goldens that were computed on this checkpoint");
ABSL_FLAG(int, ranks, 1, "ranks of the tensor-parallel group, 1 to 16");
ABSL_FLAG(std::string, device, "cpu", "cpu or cuda");
ABSL_FLAG(std::string, mode, "w4a16",
          "how Linears are multiplied: w4a16, w4a8_int8 (on the CPU), w4a8_fp8 or w4a4; the CPU emulates the "
          "last two");
ABSL_FLAG(std::string, head, "bf16", "as in lancet-worker: bf16 or int8");
ABSL_FLAG(std::string, block_scales, "bf16", "as in lancet-worker: bf16 or e4m3");
ABSL_FLAG(std::vector<std::string>, bf16_linears, {}, "Linears that stay in w4a16: patterns with * and ?");
ABSL_FLAG(std::string, activation_factors, "", "as in lancet-worker");
ABSL_FLAG(std::string, transport, "auto",
          "between the devices of a group: peer (they read each other's memory), nccl, or auto: the first "
          "that works");
ABSL_FLAG(bool, f32_partials, false, "partial sums of many rows between devices in f32 instead of bf16");
ABSL_FLAG(std::string, case, "", "run this case only");
ABSL_FLAG(double, tolerance, lancet::kToleranceFactor,
          "limit of an error against fp64, in errors of the reference's own bf16 arithmetic, 0.1 to 1000");
ABSL_FLAG(int, against_cpu, 0,
          "instead of cases: so many random requests, also run on one CPU rank, compared; 0 to 1000");
ABSL_FLAG(uint64_t, seed, 1, "of the random requests");
ABSL_FLAG(std::string, json, "", "also write the report to this file");

namespace lancet {
namespace {

// Largest golden picture, in latents: 1024 x 1024 pixels.
constexpr int64_t kMaxLatents = 4096;

// Prints the report, and writes it where asked.
absl::StatusOr<bool> Finish(const GoldenReport& report) {
  std::cout << report.Table();
  if (const std::string json = absl::GetFlag(FLAGS_json); !json.empty()) {
    std::ofstream file(json);
    file << report.Json() << "\n";
    if (!file.flush()) return absl::UnavailableError(absl::StrCat("--json ", json, ": cannot be written"));
  }
  return report.passed();
}

absl::StatusOr<bool> RunGoldens() {
  const int ranks = absl::GetFlag(FLAGS_ranks);
  if (ranks < 1 || ranks > 16) {
    return absl::InvalidArgumentError(absl::StrCat("--ranks ", ranks, " is outside 1 to 16"));
  }
  LANCET_ASSIGN_OR_RETURN(const CheckpointPaths paths, ResolveCheckpoint(CheckpointPathsFromFlags()));
  LANCET_ASSIGN_OR_RETURN(const auto checkpoint, Checkpoint::Open(paths));
  LANCET_ASSIGN_OR_RETURN(const GoldenFolder folder, GoldenFolder::Open(absl::GetFlag(FLAGS_golden)));
  EngineOptions options;
  options.max_latents = kMaxLatents;
  const std::string device = absl::GetFlag(FLAGS_device);
  if (device != "cpu" && device != "cuda") {
    return absl::InvalidArgumentError(absl::StrCat("--device ", device, ": expected cpu or cuda"));
  }
  options.device = device == "cuda" ? DeviceKind::kCuda : DeviceKind::kCpu;
  LANCET_ASSIGN_OR_RETURN(options.linears.mode, ParseLinearMode(absl::GetFlag(FLAGS_mode), device == "cuda"));
  LANCET_ASSIGN_OR_RETURN(options.linears.e4m3_scales, ParseBlockScales(absl::GetFlag(FLAGS_block_scales)));
  LANCET_ASSIGN_OR_RETURN(options.linears.head, ParseHeadForm(absl::GetFlag(FLAGS_head)));
  options.linears.bf16_linears = absl::GetFlag(FLAGS_bf16_linears);
  options.linears.activation_factors = absl::GetFlag(FLAGS_activation_factors);
  LANCET_ASSIGN_OR_RETURN(const LinearPolicy policy, LinearPolicy::Create(*checkpoint, options.linears));
  const std::string transport = absl::GetFlag(FLAGS_transport);
  if (transport != "auto" && transport != "peer" && transport != "nccl") {
    return absl::InvalidArgumentError(
        absl::StrCat("--transport is ", transport, "; expected auto, peer or nccl"));
  }
  options.device_transport = transport == "peer"   ? DeviceTransport::kPeerMemory
                             : transport == "nccl" ? DeviceTransport::kNccl
                                                   : DeviceTransport::kAuto;
  options.f32_partials = absl::GetFlag(FLAGS_f32_partials);
  LANCET_ASSIGN_OR_RETURN(const auto engines, RankGroup::Load(*checkpoint, ranks, options));
  const double tolerance = absl::GetFlag(FLAGS_tolerance);
  if (!(tolerance >= 0.1 && tolerance <= 1000)) {
    return absl::InvalidArgumentError(absl::StrCat("--tolerance ", tolerance, " is outside 0.1 to 1000"));
  }
  std::unique_ptr<CudaStages> cuda;
  if (options.device == DeviceKind::kCuda) {
    LANCET_ASSIGN_OR_RETURN(cuda, CudaStages::Create(*checkpoint, options));
  }
  GoldenReport report(tolerance);
  const GoldenContext context{*checkpoint,          folder, ranks,     *engines, report, options.device,
                              options.linears.mode, policy, cuda.get()};
  if (const int count = absl::GetFlag(FLAGS_against_cpu); count != 0) {
    if (count < 0 || count > 1000) {
      return absl::InvalidArgumentError(absl::StrCat("--against_cpu ", count, " is outside 0 to 1000"));
    }
    EngineOptions cpu = options;
    cpu.device = DeviceKind::kCpu;
    LANCET_ASSIGN_OR_RETURN(const auto host, RankGroup::Load(*checkpoint, 1, cpu));
    LANCET_RETURN_IF_ERROR(RunAgainstCpu(context, *host, count, absl::GetFlag(FLAGS_seed)));
    return Finish(report);
  }
  const std::string only = absl::GetFlag(FLAGS_case);
  bool found = false;
  for (const std::string& name : folder.cases()) {
    if (!only.empty() && name != only) continue;
    found = true;
    RunGoldenCase(context, name);
  }
  if (!found)
    return absl::NotFoundError(
        absl::StrCat("--case ", only, ": no such case in ", absl::GetFlag(FLAGS_golden)));
  return Finish(report);
}

}  // namespace
}  // namespace lancet

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage(
      "Compares the engine with goldens.\n\n"
      "  lancet-golden --model_dir DIR --golden DIR [--ranks R] [--device cpu|cuda] [--mode "
      "w4a16|w4a8_int8|w4a8_fp8|w4a4]\n"
      "                [--case NAME] [--json FILE]\n"
      "  lancet-golden --model_dir DIR --golden DIR [--ranks R] [--device cpu|cuda] --against_cpu N [--seed "
      "S]\n\n"
      "A row per quantity: our error, the reference's own bf16 error (yardstick), and ratio = error / limit, "
      "the limit being\n"
      "--tolerance yardsticks for traces. Exit code 0: every ratio is at most 1; 1: one is above; 2: the run "
      "itself "
      "failed.");
  absl::ParseCommandLine(argc, argv);
  const auto passed = lancet::RunGoldens();
  if (!passed.ok()) {
    std::cerr << "lancet-golden: " << passed.status() << "\n";
    return 2;
  }
  return *passed ? 0 : 1;
}
