#include "common/program_flags.h"

#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/flags/usage_config.h"
#include "absl/strings/match.h"

namespace lancet {

std::vector<std::string> ParseProgramFlags(int argc, char** argv, absl::string_view usage) {
  absl::SetProgramUsageMessage(usage);
  absl::FlagsUsageConfig config;
  const auto is_ours = [](absl::string_view file) { return !absl::StrContains(file, "absl/"); };
  config.contains_help_flags = is_ours;
  config.contains_helpshort_flags = is_ours;
  // "common/checkpoint_flags.cc" rather than wherever the program was built.
  config.normalize_filename = [](absl::string_view file) {
    const size_t folder = file.rfind('/', file.rfind('/') - 1);
    return std::string(folder == absl::string_view::npos ? file : file.substr(folder + 1));
  };
  absl::SetFlagsUsageConfig(config);
  const std::vector<char*> rest = absl::ParseCommandLine(argc, argv);
  return {rest.begin() + 1, rest.end()};
}

}  // namespace lancet
