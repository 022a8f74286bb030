// lancet-quantize: makes an NVFP4 checkpoint of an unquantised one.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "common/mapped_file.h"
#include "common/program_flags.h"
#include "common/sharded_state_dict.h"
#include "common/status_macros.h"
#include "common/thread_pool.h"
#include "tools/quantize/linear_rules.h"
#include "tools/quantize/progress_bar.h"
#include "tools/quantize/quantise_checkpoint.h"
#include "tools/quantize/release_folder.h"
#include "tools/quantize/source_files.h"

ABSL_FLAG(std::string, source, "", "the unquantised checkpoint: its folder, or its file of weights");
ABSL_FLAG(std::string, output, "", "folder to make the quantised checkpoint in");
ABSL_FLAG(std::string, llm_config, "", "llm_config.json; default: the one beside the weights");
ABSL_FLAG(std::string, calibration, "", "statistics of the source, as lancet-calibrate writes them");
ABSL_FLAG(std::string, recipe, "best", "best, published or gptq");
ABSL_FLAG(
    std::string, linears, "",
    "which Linears stay in bf16: PATTERN=bf16 or PATTERN=nvfp4, separated by commas; the last that fits "
    "a Linear's name decides");
ABSL_FLAG(int, threads, 0, "compute threads; 0: one per core");

namespace lancet {
namespace {

constexpr char kUsage[] =
    R"(quantises a Lance checkpoint (F32, BF16 or F16; safetensors, an index of several, or a PyTorch archive) to
NVFP4, in the layout of the public release.

  lancet-quantize --source Lance/ --output my-lance --calibration statistics.safetensors
  lancet-quantize --source Lance/Lance_3B/model.safetensors --output my-lance --recipe published
  lancet-quantize --source Lance/ --output my-lance --linears '*.layers.0.*=bf16,*.down_proj=bf16'

OUTPUT becomes what --model_dir of the server takes: the trunk is written, what else lies in the source's folder
and beside it is linked. The trunk appears under its name when it is complete.

Exit status: 0 done, 1 the source is not fit or a file cannot be written (said on stderr), 2 wrong usage.)";

enum ExitCode { kDone = 0, kFailed = 1, kUsageError = 2 };

constexpr size_t kMaxConfigBytes = size_t{4} << 20;

int Threads() {
  const int flag = absl::GetFlag(FLAGS_threads);
  return flag > 0 ? flag : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

absl::Status Run() {
  LANCET_ASSIGN_OR_RETURN(const SourceFiles files,
                          FindSource(absl::GetFlag(FLAGS_source), absl::GetFlag(FLAGS_llm_config)));
  LANCET_ASSIGN_OR_RETURN(const std::string config_json, ReadTextFile(files.llm_config, kMaxConfigBytes));
  LANCET_ASSIGN_OR_RETURN(const ModelConfig config, ParseModelConfig(config_json, files.llm_config));
  QuantiseOptions options;
  LANCET_ASSIGN_OR_RETURN(options.recipe, ParseRecipe(absl::GetFlag(FLAGS_recipe)));
  LANCET_ASSIGN_OR_RETURN(options.bf16_linears,
                          LinearsInBf16(absl::GetFlag(FLAGS_linears), TrunkLinears(config)));
  std::optional<Calibration> calibration;
  if (!absl::GetFlag(FLAGS_calibration).empty()) {
    LANCET_ASSIGN_OR_RETURN(calibration, Calibration::Open(absl::GetFlag(FLAGS_calibration)));
    options.calibration = &*calibration;
  }
  LANCET_ASSIGN_OR_RETURN(const std::unique_ptr<StateDict> source, OpenSourceStateDict(files.weights));
  LANCET_ASSIGN_OR_RETURN(const std::unique_ptr<ReleaseFolder> release,
                          ReleaseFolder::Create(absl::GetFlag(FLAGS_output)));
  ProgressBar bar(stderr, isatty(STDERR_FILENO) != 0);
  options.progress = [&](uint64_t done, uint64_t total) { bar.Update(done, total, absl::Now()); };
  ThreadPool pool(Threads());
  LANCET_ASSIGN_OR_RETURN(const QuantiseSummary summary,
                          WriteQuantised(*source, config, options, pool, release->state_dict()));
  LANCET_ASSIGN_OR_RETURN(const std::vector<std::string> missing, release->AddCompanions(files));
  LANCET_RETURN_IF_ERROR(release->Publish(MetaJson(summary, options)));
  const auto count = [&](bool QuantisedLinear::*what) {
    return std::count_if(summary.linears.begin(), summary.linears.end(),
                         [&](const QuantisedLinear& linear) { return linear.*what; });
  };
  std::cout << absl::GetFlag(FLAGS_output) << ": " << summary.linears.size() << " Linears in NVFP4 ("
            << count(&QuantisedLinear::is_awq) << " with factors per channel, "
            << count(&QuantisedLinear::is_compensated) << " with compensated rounding), "
            << summary.bf16_linears.size() << " in bf16, " << summary.bytes << " bytes\n";
  if (!summary.without_statistics.empty()) {
    std::cout << "no statistics in the calibration for: " << absl::StrJoin(summary.without_statistics, ", ")
              << "\n";
  }
  if (!missing.empty()) {
    std::cout << "not found beside the source, and needed to serve: " << absl::StrJoin(missing, ", ") << "\n";
  }
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  const std::vector<std::string> arguments = ParseProgramFlags(argc, argv, kUsage);
  const int threads = absl::GetFlag(FLAGS_threads);
  if (!arguments.empty() || absl::GetFlag(FLAGS_source).empty() || absl::GetFlag(FLAGS_output).empty() ||
      threads < 0 || threads > 1024) {
    std::cerr << "usage: lancet-quantize --source FOLDER --output FOLDER; see --help\n";
    return kUsageError;
  }
  const absl::Status status = Run();
  if (status.ok()) return kDone;
  std::cerr << "lancet-quantize: " << status.message() << "\n";
  return kFailed;
}

}  // namespace
}  // namespace lancet

int main(int argc, char** argv) { return lancet::Main(argc, argv); }
