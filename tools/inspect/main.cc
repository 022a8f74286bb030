// lancet-inspect: prints what a checkpoint, or one of its files, holds.
#include <algorithm>
#include <cstdint>
#include <iostream>
#include <limits>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/status/statusor.h"
#include "common/checkpoint_flags.h"
#include "common/program_flags.h"
#include "common/sharded_state_dict.h"
#include "common/status_macros.h"
#include "common/thread_pool.h"
#include "tools/inspect/comparison.h"
#include "tools/inspect/inspection.h"
#include "tools/inspect/report.h"
#include "tools/quantize/input_statistics.h"
#include "tools/quantize/source_files.h"

ABSL_FLAG(bool, json, false, "Print JSON instead of text");
ABSL_FLAG(bool, tensors, false, "List every tensor with its element type and shape");
ABSL_FLAG(
    std::string, compare, "",
    "print what quantisation cost each Linear of the trunk: the unquantised checkpoint, its folder or its "
    "file of weights");
ABSL_FLAG(
    std::string, calibration, "",
    "with --compare: statistics of the source, as lancet-calibrate writes them, for the error of outputs");
ABSL_FLAG(int64_t, code_rows, 64,
          "Rows of each quantised matrix whose codes are checked; 0 checks all, which reads the whole file");

namespace lancet {
namespace {

constexpr char kUsage[] =
    R"(prints what a checkpoint holds: sizes, tensors by kind, bytes, fingerprint, statistics of
the NVFP4 scales, memory per rank, and tensors that nothing reads. Everything is checked on the way.

  lancet-inspect --model_dir models/demo           a whole checkpoint, as the server opens it
  lancet-inspect --model_dir DIR --json            the same for programs
  lancet-inspect FILE                              one .safetensors or .pth file
  lancet-inspect FILE --tensors                    with every tensor in it
  lancet-inspect --model_dir DIR --compare SOURCE --calibration FILE
                                                   errors of weights and outputs per Linear, the worst named

Exit status: 0 the files are sound, 1 something is missing or wrong (said on stderr), 2 wrong usage.)";

enum ExitCode { kSound = 0, kUnsound = 1, kUsageError = 2 };

absl::StatusOr<std::string> InspectOneFile(const std::string& path, int64_t code_rows,
                                           const ReportOptions& options) {
  LANCET_ASSIGN_OR_RETURN(const std::unique_ptr<StateDict> dict, OpenStateDict(path));
  LANCET_ASSIGN_OR_RETURN(const FileInspection file, InspectFile(*dict, code_rows));
  return Report(file, options);
}

absl::StatusOr<std::string> InspectFlags(int64_t code_rows, const ReportOptions& options) {
  LANCET_ASSIGN_OR_RETURN(const CheckpointPaths paths, ResolveCheckpoint(CheckpointPathsFromFlags()));
  LANCET_ASSIGN_OR_RETURN(const std::unique_ptr<Checkpoint> checkpoint, Checkpoint::Open(paths));
  LANCET_ASSIGN_OR_RETURN(const CheckpointInspection inspection, InspectCheckpoint(*checkpoint, code_rows));
  return Report(inspection, options);
}

absl::StatusOr<std::string> CompareFlags(bool json) {
  LANCET_ASSIGN_OR_RETURN(const CheckpointPaths paths, ResolveCheckpoint(CheckpointPathsFromFlags()));
  LANCET_ASSIGN_OR_RETURN(const std::unique_ptr<Checkpoint> checkpoint, Checkpoint::Open(paths));
  LANCET_ASSIGN_OR_RETURN(const SourceFiles files,
                          FindSource(absl::GetFlag(FLAGS_compare), paths.llm_config));
  LANCET_ASSIGN_OR_RETURN(const std::unique_ptr<StateDict> source, OpenSourceStateDict(files.weights));
  std::optional<Calibration> calibration;
  if (!absl::GetFlag(FLAGS_calibration).empty()) {
    LANCET_ASSIGN_OR_RETURN(calibration, Calibration::Open(absl::GetFlag(FLAGS_calibration)));
  }
  ThreadPool pool(std::max(1, static_cast<int>(std::thread::hardware_concurrency())));
  LANCET_ASSIGN_OR_RETURN(const std::vector<LinearComparison> linears,
                          CompareWithSource(checkpoint->trunk(), checkpoint->config(), *source,
                                            calibration.has_value() ? &*calibration : nullptr, pool));
  return ComparisonReport(linears, json);
}

int Main(int argc, char** argv) {
  const std::vector<std::string> arguments = ParseProgramFlags(argc, argv, kUsage);
  const bool one_file = arguments.size() == 1;
  const bool flags = arguments.empty();
  int64_t code_rows = absl::GetFlag(FLAGS_code_rows);
  if ((!one_file && !flags) || code_rows < 0 ||
      (flags && CheckpointPathsFromFlags().model_dir.empty() && CheckpointPathsFromFlags().trunk.empty())) {
    std::cerr << "usage: lancet-inspect --model_dir DIR, or lancet-inspect FILE; see --help\n";
    return kUsageError;
  }
  if (code_rows == 0) code_rows = std::numeric_limits<int64_t>::max();
  const ReportOptions options{absl::GetFlag(FLAGS_json), absl::GetFlag(FLAGS_tensors)};
  const bool compares = !absl::GetFlag(FLAGS_compare).empty();
  if (compares && one_file) {
    std::cerr << "usage: lancet-inspect --model_dir DIR --compare SOURCE; see --help\n";
    return kUsageError;
  }
  const absl::StatusOr<std::string> report = compares   ? CompareFlags(options.json)
                                             : one_file ? InspectOneFile(arguments[0], code_rows, options)
                                                        : InspectFlags(code_rows, options);
  if (!report.ok()) {
    std::cerr << "lancet-inspect: " << report.status().message() << "\n";
    return kUnsound;
  }
  std::cout << *report << std::flush;
  return kSound;
}

}  // namespace
}  // namespace lancet

int main(int argc, char** argv) { return lancet::Main(argc, argv); }
