#include "tools/quantize/source_files.h"

#include <filesystem>
#include <system_error>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/status_macros.h"

namespace lancet {
namespace {

namespace fs = std::filesystem;

bool IsFile(const fs::path& path) {
  std::error_code error;
  return fs::is_regular_file(path, error);
}

}  // namespace

absl::StatusOr<SourceFiles> FindSource(const std::string& source, const std::string& llm_config) {
  SourceFiles files;
  std::vector<std::string> looked_at;
  if (IsFile(source)) {
    files.weights = source;
  } else {
    for (const fs::path& folder : {fs::path(source), fs::path(source) / "Lance_3B"}) {
      for (const char* name :
           {"model.safetensors", "model.safetensors.index.json", "model.pth", "ema.safetensors"}) {
        const fs::path candidate = folder / name;
        if (files.weights.empty() && IsFile(candidate)) files.weights = candidate.string();
        looked_at.push_back(candidate.string());
      }
    }
    if (files.weights.empty()) {
      return absl::NotFoundError(
          absl::StrCat("--source: no weights found; looked at ", absl::StrJoin(looked_at, ", ")));
    }
  }
  const fs::path folder = fs::path(files.weights).parent_path();
  files.folder = folder.empty() ? "." : folder.string();
  files.llm_config = llm_config.empty() ? (fs::path(files.folder) / "llm_config.json").string() : llm_config;
  if (!IsFile(files.llm_config)) {
    return absl::NotFoundError(absl::StrCat(files.llm_config, " not found; --llm_config names another"));
  }
  return files;
}

}  // namespace lancet
