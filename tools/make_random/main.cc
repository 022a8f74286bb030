// lancet-make-random: a checkpoint of the release's size and layout with random weights.
#include <algorithm>
#include <filesystem>
#include <iostream>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "common/program_flags.h"
#include "common/status_macros.h"
#include "tools/make_random/random_checkpoint.h"

ABSL_FLAG(std::string, dims, "3b", "Sizes: 3b, the release's, or small, as small as its layout goes");
ABSL_FLAG(int64_t, layers, 0, "Layers of the trunk, 1 to 1024; 0: as many as --dims says");
ABSL_FLAG(uint64_t, seed, 1, "Of all weights");
ABSL_FLAG(int, threads, 0, "Threads that make weights, 1 to 64; 0: the machine's processors");

namespace lancet {
namespace {

constexpr char kUsage[] =
    R"(writes a checkpoint with random weights, in size and layout as downloads are: trunk, vision tower,
autoencoder, configurations and tokenizer. It loads and runs like a real one and draws noise.

  lancet-make-random FOLDER                 the release's sizes: 9.3 GB
  lancet-make-random --layers 2 FOLDER      the same with two layers of the trunk: 5.7 GB
  lancet-make-random --dims small FOLDER    a few MB

Equal flags give equal bytes. Exit status: 0 written, 1 not written (said on stderr), 2 wrong usage.)";

constexpr int64_t kMaxLayers = 1024;
constexpr int kMaxThreads = 64;

enum ExitCode { kWritten = 0, kFailed = 1, kUsageError = 2 };

absl::StatusOr<RandomDims> DimsFromFlags() {
  LANCET_ASSIGN_OR_RETURN(RandomDims dims, RandomDimsByName(absl::GetFlag(FLAGS_dims)));
  const int64_t layers = absl::GetFlag(FLAGS_layers);
  if (layers < 0 || layers > kMaxLayers) {
    return absl::InvalidArgumentError(absl::StrCat("--layers is ", layers, "; expected 0 to ", kMaxLayers));
  }
  if (layers > 0) dims.trunk.num_layers = layers;
  return dims;
}

absl::Status CheckSpace(const std::string& folder, int64_t bytes) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  const std::filesystem::space_info space = std::filesystem::space(folder, error);
  if (error || space.available >= static_cast<uintmax_t>(bytes)) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat(folder, ": has room for ", space.available, " bytes; the checkpoint has ", bytes));
}

int Main(int argc, char** argv) {
  const std::vector<std::string> arguments = ParseProgramFlags(argc, argv, kUsage);
  const absl::StatusOr<RandomDims> dims = DimsFromFlags();
  RandomCheckpointOptions options;
  options.seed = absl::GetFlag(FLAGS_seed);
  options.threads = absl::GetFlag(FLAGS_threads);
  if (options.threads == 0) {
    options.threads = std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, kMaxThreads);
  }
  if (arguments.size() != 1 || !dims.ok() || options.threads < 1 || options.threads > kMaxThreads) {
    std::cerr << "lancet-make-random: "
              << (dims.ok() ? "expected one folder, and 0 to 64 threads; see --help"
                            : std::string(dims.status().message()))
              << "\n";
    return kUsageError;
  }
  const int64_t bytes = RandomCheckpointBytes(*dims);
  const absl::Time begin = absl::Now();
  absl::Status status = CheckSpace(arguments[0], bytes);
  if (status.ok()) status = WriteRandomCheckpoint(arguments[0], *dims, options);
  if (!status.ok()) {
    std::cerr << "lancet-make-random: " << status.message() << "\n";
    return kFailed;
  }
  std::cout << absl::StrFormat("%s: %.2f GB in %.1f s\n", arguments[0], static_cast<double>(bytes) * 1e-9,
                               absl::ToDoubleSeconds(absl::Now() - begin));
  return kWritten;
}

}  // namespace
}  // namespace lancet

int main(int argc, char** argv) { return lancet::Main(argc, argv); }
