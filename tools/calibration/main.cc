// lancet-calibrate: statistics of what enters the Linears while requests run through the engine.
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/checkpoint.h"
#include "common/checkpoint_flags.h"
#include "common/program_flags.h"
#include "common/status_macros.h"
#include "tools/calibration/calibration_file.h"
#include "tools/calibration/calibration_sums.h"
#include "tools/calibration/rank_inputs.h"
#include "tools/requests/rank_group.h"
#include "tools/requests/request_set.h"

ABSL_FLAG(
    std::string, requests, "",
    "prompts, edits and questions: a folder or a file (tools/requests/request_set.h); default: expected/ in "
    "--model_dir");
ABSL_FLAG(std::string, output, "", "the file of statistics to write");
ABSL_FLAG(std::vector<std::string>, xtx, {},
          "also sum x x^T of products with a Linear that one of these patterns matches, such as '*' or "
          "'*.o_proj*'; takes "
          "4 bytes * inputs^2 of memory and file each");
ABSL_FLAG(bool, merge, false,
          "write the sum of the files that the arguments name to --output, and run nothing");
ABSL_FLAG(std::string, from, "", "with --factors: take these statistics instead of running requests");
ABSL_FLAG(std::string, factors, "", "also write the checkpoint's activation_factors.json here");
ABSL_FLAG(
    double, factor_percentile, 100,
    "|x| that fits under the largest scale of NVFP4 activations: 99, 99.9, 99.99 or 100 percent of all");
ABSL_FLAG(int, ranks, 1, "ranks to split the model over, as threads, 1 to 64");
ABSL_FLAG(int, threads, 1, "compute threads of a rank, 1 to 1024");
ABSL_FLAG(int, most, 1000, "at most so many pictures, edits and questions each, 1 to 1000");
ABSL_FLAG(int, steps, 30, "denoise steps of a picture, 1 to 1000");
ABSL_FLAG(int, side, 0, "side of pictures in pixels, 64 to 1024; 0: the checkpoint's default size");
ABSL_FLAG(int, max_new_tokens, 64, "tokens of an answer at most, 1 to 1024");

namespace lancet {
namespace {

constexpr char kUsage[] =
    R"(statistics of what enters the Linears of a trunk, by running requests through the engine on the CPU.

  lancet-calibrate --model_dir MODEL --requests SET --output FILE [--factors FACTORS]
  lancet-calibrate --merge --output FILE A B ...
  lancet-calibrate --model_dir MODEL --from FILE --factors FACTORS

tools/calibration/calibration_file.h has the format of FILE, which lancet-quantize reads; FACTORS is an
activation_factors.json for --linear_mode=w4a4 of a worker.)";

absl::Status CheckFlag(const char* name, int value, int least, int most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--", name, " is ", value, "; expected ", least, " to ", most));
}

absl::Status CheckFlags() {
  LANCET_RETURN_IF_ERROR(CheckFlag("ranks", absl::GetFlag(FLAGS_ranks), 1, 64));
  LANCET_RETURN_IF_ERROR(CheckFlag("threads", absl::GetFlag(FLAGS_threads), 1, 1024));
  LANCET_RETURN_IF_ERROR(CheckFlag("most", absl::GetFlag(FLAGS_most), 1, 1000));
  LANCET_RETURN_IF_ERROR(CheckFlag("steps", absl::GetFlag(FLAGS_steps), 1, 1000));
  LANCET_RETURN_IF_ERROR(CheckFlag("max_new_tokens", absl::GetFlag(FLAGS_max_new_tokens), 1, 1024));
  if (absl::GetFlag(FLAGS_side) == 0) return absl::OkStatus();
  return CheckFlag("side", absl::GetFlag(FLAGS_side), 64, 1024);
}

absl::Status WriteFactors(const Checkpoint& checkpoint, const std::string& statistics) {
  LANCET_ASSIGN_OR_RETURN(const auto file, CalibrationFile::Open(statistics));
  LANCET_ASSIGN_OR_RETURN(const std::string text,
                          ActivationFactorsJson(checkpoint, *file, absl::GetFlag(FLAGS_factor_percentile)));
  LANCET_RETURN_IF_ERROR(WriteTextFile(absl::GetFlag(FLAGS_factors), text));
  std::cout << "wrote " << absl::GetFlag(FLAGS_factors) << "\n";
  return absl::OkStatus();
}

absl::Status Merge(const std::vector<std::string>& paths, const std::string& output) {
  if (paths.empty()) return absl::InvalidArgumentError("--merge: name files to merge");
  LANCET_ASSIGN_OR_RETURN(const auto first, CalibrationFile::Open(paths[0]));
  LANCET_ASSIGN_OR_RETURN(CalibrationSums sum, CalibrationSums::Create(*first));
  for (size_t i = 1; i < paths.size(); ++i) {
    LANCET_ASSIGN_OR_RETURN(const auto file, CalibrationFile::Open(paths[i]));
    LANCET_RETURN_IF_ERROR(sum.Add(*file));
  }
  LANCET_RETURN_IF_ERROR(sum.Write(output));
  std::cout << "wrote " << output << ", the sum of " << paths.size() << " files\n";
  return absl::OkStatus();
}

absl::Status Collect(const Checkpoint& checkpoint, const RequestSet& set, CalibrationSums& calibration) {
  EngineOptions options;
  options.threads = absl::GetFlag(FLAGS_threads);
  options.max_requests = 1;
  for (const SetRequest* request : set.All()) {
    options.max_latents = std::max(options.max_latents, request->plan.target.num_latents());
  }
  const int ranks = absl::GetFlag(FLAGS_ranks);
  LANCET_ASSIGN_OR_RETURN(const auto group, RankGroup::Load(checkpoint, ranks, options));
  LANCET_ASSIGN_OR_RETURN(const auto inputs,
                          RankInputs::Create(checkpoint.config(), ranks, options.threads, &calibration));
  const std::vector<const SetRequest*> all = set.All();
  for (size_t i = 0; i < all.size(); ++i) {
    const absl::Time begin = absl::Now();
    LANCET_RETURN_IF_ERROR(group->RunInPieces(all[i]->plan, inputs->traces()).status());
    LANCET_RETURN_IF_ERROR(inputs->status());
    std::cerr << absl::StrFormat("%3d of %d, %.1f s: %s\n", i + 1, all.size(),
                                 absl::ToDoubleSeconds(absl::Now() - begin), all[i]->text);
  }
  return absl::OkStatus();
}

absl::Status Run(const std::vector<std::string>& arguments) {
  LANCET_RETURN_IF_ERROR(CheckFlags());
  const std::string output = absl::GetFlag(FLAGS_output);
  const std::string from = absl::GetFlag(FLAGS_from);
  if (from.empty() ? output.empty() : absl::GetFlag(FLAGS_factors).empty()) {
    return absl::InvalidArgumentError(from.empty() ? "--output is not set" : "--from: --factors is not set");
  }
  if (absl::GetFlag(FLAGS_merge)) return Merge(arguments, output);
  if (!arguments.empty())
    return absl::InvalidArgumentError(absl::StrCat("unexpected argument ", arguments[0]));
  LANCET_ASSIGN_OR_RETURN(const CheckpointPaths paths, ResolveCheckpoint(CheckpointPathsFromFlags()));
  LANCET_ASSIGN_OR_RETURN(const auto checkpoint, Checkpoint::Open(paths));
  if (!from.empty()) return WriteFactors(*checkpoint, from);

  RequestSetOptions options;
  options.most = static_cast<size_t>(absl::GetFlag(FLAGS_most));
  options.sampler.num_steps = absl::GetFlag(FLAGS_steps);
  options.side = absl::GetFlag(FLAGS_side) / 16 * 16;
  options.max_new_tokens = absl::GetFlag(FLAGS_max_new_tokens);
  std::string requests = absl::GetFlag(FLAGS_requests);
  if (requests.empty()) requests = absl::StrCat(paths.model_dir, "/expected");
  LANCET_ASSIGN_OR_RETURN(const RequestSet set, LoadRequestSet(*checkpoint, requests, options));
  LANCET_ASSIGN_OR_RETURN(CalibrationSums calibration,
                          CalibrationSums::Create(*checkpoint, absl::GetFlag(FLAGS_xtx)));
  LANCET_RETURN_IF_ERROR(Collect(*checkpoint, set, calibration));
  LANCET_RETURN_IF_ERROR(calibration.Write(output));
  std::cout << "wrote " << output << ", statistics of " << set.All().size() << " requests\n";
  return absl::GetFlag(FLAGS_factors).empty() ? absl::OkStatus() : WriteFactors(*checkpoint, output);
}

}  // namespace
}  // namespace lancet

int main(int argc, char** argv) {
  const std::vector<std::string> arguments = lancet::ParseProgramFlags(argc, argv, lancet::kUsage);
  const absl::Status status = lancet::Run(arguments);
  if (!status.ok()) {
    std::cerr << "lancet-calibrate: " << status << "\n";
    return 1;
  }
  return 0;
}
