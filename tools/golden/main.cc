// lancet-golden: drives the real engine through a folder of goldens and says how far from the oracle it is.

#include <fstream>
#include <iostream>
#include <string>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/strings/str_cat.h"
#include "common/checkpoint.h"
#include "common/checkpoint_flags.h"
#include "common/status_macros.h"
#include "tools/golden/golden_case.h"
#include "tools/golden/golden_runs.h"
#include "tools/golden/rank_group.h"
#include "tools/golden/report.h"

ABSL_FLAG(std::string, golden, "", "folder of goldens that were computed on this checkpoint");
ABSL_FLAG(int, ranks, 1, "ranks of the tensor-parallel group, 1 to 16");
ABSL_FLAG(std::string, device, "cpu", "cpu, or cuda: then only cases that go through the engine are run");
ABSL_FLAG(std::string, mode, "w4a16", "how Linears are multiplied on a CUDA device: w4a16, w4a8 or w4a4");
ABSL_FLAG(std::string, case, "", "run this case only");
ABSL_FLAG(std::string, json, "", "also write the report to this file");

namespace lancet {
namespace {

// Largest golden picture, in latents: 1024 x 1024 pixels.
constexpr int64_t kMaxLatents = 4096;

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
  const std::string mode = absl::GetFlag(FLAGS_mode);
  if ((device != "cpu" && device != "cuda") || (mode != "w4a16" && mode != "w4a8" && mode != "w4a4")) {
    return absl::InvalidArgumentError(
        absl::StrCat("--device ", device, " --mode ", mode, ": expected cpu or cuda, w4a16, w4a8 or w4a4"));
  }
  options.device = device == "cuda" ? DeviceKind::kCuda : DeviceKind::kCpu;
  options.linear_mode = mode == "w4a8"   ? LinearMode::kW4A8
                        : mode == "w4a4" ? LinearMode::kW4A4
                                         : LinearMode::kW4A16;
  LANCET_ASSIGN_OR_RETURN(const auto engines, RankGroup::Load(*checkpoint, ranks, options));
  GoldenReport report;
  const GoldenContext context{*checkpoint, folder, ranks, *engines, report, options.device};
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
  std::cout << report.Table();
  if (const std::string json = absl::GetFlag(FLAGS_json); !json.empty()) {
    std::ofstream file(json);
    file << report.Json() << "\n";
    if (!file.flush()) return absl::UnavailableError(absl::StrCat("--json ", json, ": cannot be written"));
  }
  return report.passed();
}

}  // namespace
}  // namespace lancet

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage(
      "Compares the engine with goldens.\n\n"
      "  lancet-golden --model_dir DIR --golden DIR [--ranks R] [--device cpu|cuda] [--case NAME] [--json "
      "FILE]\n\n"
      "A row per quantity: our error, the reference's own bf16 error (yardstick), and ratio = error / limit, "
      "the limit being\n"
      "1.5 yardsticks for traces. Exit code 0: every ratio is at most 1; 1: one is above; 2: the run itself "
      "failed.");
  absl::ParseCommandLine(argc, argv);
  const auto passed = lancet::RunGoldens();
  if (!passed.ok()) {
    std::cerr << "lancet-golden: " << passed.status() << "\n";
    return 2;
  }
  return *passed ? 0 : 1;
}
