// lancet-numerics: what the arithmetic of each mode costs, Linear by Linear and in pictures and answers.
#include <iostream>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "common/checkpoint.h"
#include "common/checkpoint_flags.h"
#include "common/program_flags.h"
#include "common/status_macros.h"
#include "kernels/kernel_context.h"
#include "tools/numerics/expected_requests.h"
#include "tools/numerics/linear_errors.h"
#include "tools/numerics/model_quality.h"

ABSL_FLAG(std::string, expected, "",
          "folder of requests and what is right; default: expected/ in --model_dir");
ABSL_FLAG(std::vector<std::string>, modes, (std::vector<std::string>{"w4a8_int8", "w4a8_fp8", "w4a4"}),
          "model: modes to compare with w4a16");
ABSL_FLAG(std::vector<std::string>, bf16_linears, {}, "model: a further line in w4a4 with these in w4a16");
ABSL_FLAG(bool, e4m3_scales, false, "model: a further line in w4a8_int8 with E4M3 block scales");
ABSL_FLAG(std::string, head, "", "model: a further line in w4a16 with the output head kept in this form");
ABSL_FLAG(std::string, activation_factors, "none", "model: as in lancet-worker, for w4a4");
ABSL_FLAG(std::string, other_model_dir, "",
          "model: a further line for this checkpoint in w4a16, such as shipped_scales.py writes");
ABSL_FLAG(int, most, 32, "at most so many pictures, edits and questions each, 1 to 1000");
ABSL_FLAG(int, steps, 30, "denoise steps of a picture, 2 to 1000");
ABSL_FLAG(int, threads, 1, "compute threads");

namespace lancet {
namespace {

constexpr char kUsage[] =
    R"(what the arithmetic of each mode costs.

  lancet-numerics made-up                            products of made-up weights and activations
  lancet-numerics linears --model_dir models/demo    a checkpoint's products, on rows that enter them
  lancet-numerics model --model_dir models/demo      pictures, edits and answers of its requests

Errors of products: ||y - exact|| / ||exact||, exact being codes times bf16 scales in f64. Columns: w4a16; bf16
activations with the E4M3 scales that checkpoints ship (`shipped`), and with E4M3 scales re-encoded under a factor
(`re-enc.`); w4a8_int8; w4a8_fp8; w4a4 with activation factor 1, and with the factor of the sample's largest value.)";

absl::Status CheckFlag(const char* name, int value, int least, int most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--", name, " is ", value, "; expected ", least, " to ", most));
}

absl::Status CompareModel(const Checkpoint& checkpoint, const EngineOptions& w4a16,
                          const ExpectedRequests& requests) {
  std::cout << QualityHeader() << std::flush;
  LANCET_ASSIGN_OR_RETURN(const auto engine, LoneEngine::Load(checkpoint, w4a16));
  LANCET_ASSIGN_OR_RETURN(const ModelOutputs reference, RunExpected(*engine, requests));
  std::cout << QualityLine("w4a16", reference, reference, requests) << std::flush;
  const auto add = [&](const std::string& name, const Checkpoint& of,
                       const EngineOptions& options) -> absl::Status {
    LANCET_ASSIGN_OR_RETURN(const auto other, LoneEngine::Load(of, options));
    LANCET_ASSIGN_OR_RETURN(const ModelOutputs outputs, RunExpected(*other, requests));
    std::cout << QualityLine(name, outputs, reference, requests) << std::flush;
    return absl::OkStatus();
  };
  for (const std::string& mode : absl::GetFlag(FLAGS_modes)) {
    EngineOptions options = w4a16;
    LANCET_ASSIGN_OR_RETURN(options.linears.mode, ParseLinearMode(mode, /*on_cuda=*/false));
    options.linears.activation_factors = absl::GetFlag(FLAGS_activation_factors);
    LANCET_RETURN_IF_ERROR(add(mode, checkpoint, options));
  }
  if (absl::GetFlag(FLAGS_e4m3_scales)) {
    EngineOptions options = w4a16;
    options.linears.mode = LinearMode::kW4A8Int8;
    options.linears.e4m3_scales = true;
    LANCET_RETURN_IF_ERROR(add("w4a8_int8, E4M3 scales", checkpoint, options));
  }
  if (const std::string head = absl::GetFlag(FLAGS_head); !head.empty()) {
    EngineOptions options = w4a16;
    LANCET_ASSIGN_OR_RETURN(options.linears.head, ParseHeadForm(head));
    LANCET_RETURN_IF_ERROR(add(absl::StrCat("w4a16, head in ", head), checkpoint, options));
  }
  if (const auto patterns = absl::GetFlag(FLAGS_bf16_linears); !patterns.empty()) {
    EngineOptions options = w4a16;
    options.linears.mode = LinearMode::kW4A4;
    options.linears.bf16_linears = patterns;
    options.linears.activation_factors = absl::GetFlag(FLAGS_activation_factors);
    LANCET_RETURN_IF_ERROR(add("w4a4 with exceptions", checkpoint, options));
  }
  if (const std::string folder = absl::GetFlag(FLAGS_other_model_dir); !folder.empty()) {
    CheckpointPaths overrides;
    overrides.model_dir = folder;
    LANCET_ASSIGN_OR_RETURN(const CheckpointPaths paths, ResolveCheckpoint(overrides));
    LANCET_ASSIGN_OR_RETURN(const auto other, Checkpoint::Open(paths));
    LANCET_RETURN_IF_ERROR(add("other checkpoint, w4a16", *other, w4a16));
  }
  return absl::OkStatus();
}

absl::Status Run(const std::string& what) {
  LANCET_RETURN_IF_ERROR(CheckFlag("most", absl::GetFlag(FLAGS_most), 1, 1000));
  LANCET_RETURN_IF_ERROR(CheckFlag("steps", absl::GetFlag(FLAGS_steps), 2, 1000));
  CpuOptions cpu;
  cpu.threads = absl::GetFlag(FLAGS_threads);
  LANCET_ASSIGN_OR_RETURN(const auto ctx, KernelContext::CreateCpu(cpu));
  if (what == "made-up") {
    LANCET_ASSIGN_OR_RETURN(const std::string table, MadeUpLinearTable(*ctx));
    std::cout << table;
    return absl::OkStatus();
  }
  LANCET_ASSIGN_OR_RETURN(const CheckpointPaths paths, ResolveCheckpoint(CheckpointPathsFromFlags()));
  LANCET_ASSIGN_OR_RETURN(const auto checkpoint, Checkpoint::Open(paths));
  std::string folder = absl::GetFlag(FLAGS_expected);
  if (folder.empty()) folder = absl::StrCat(paths.model_dir, "/expected");
  LANCET_ASSIGN_OR_RETURN(
      const ExpectedRequests requests,
      LoadExpectedRequests(*checkpoint, folder, static_cast<size_t>(absl::GetFlag(FLAGS_most)),
                           absl::GetFlag(FLAGS_steps)));
  EngineOptions options;
  options.threads = absl::GetFlag(FLAGS_threads);
  if (what == "model") return CompareModel(*checkpoint, options, requests);
  LANCET_ASSIGN_OR_RETURN(const auto engine, LoneEngine::Load(*checkpoint, options));
  LANCET_ASSIGN_OR_RETURN(const std::string table,
                          CheckpointLinearTable(*ctx, *checkpoint, *engine, requests));
  std::cout << table;
  return absl::OkStatus();
}

}  // namespace
}  // namespace lancet

int main(int argc, char** argv) {
  const std::vector<std::string> arguments = lancet::ParseProgramFlags(argc, argv, lancet::kUsage);
  const bool known = arguments.size() == 1 &&
                     (arguments[0] == "made-up" || arguments[0] == "linears" || arguments[0] == "model");
  if (!known) {
    std::cerr << "lancet-numerics: expected one of made-up, linears and model; see --help\n";
    return 2;
  }
  const absl::Status status = lancet::Run(arguments[0]);
  if (!status.ok()) {
    std::cerr << "lancet-numerics: " << status << "\n";
    return 1;
  }
  return 0;
}
