// Where the files of an unquantised download are, as --source names it.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace lancet {

struct SourceFiles {
  std::string weights;     // a safetensors file, an index of several, or a PyTorch archive
  std::string llm_config;  // llm_config.json beside it
  std::string folder;      // of both
};

// `source`: one of these files, or a folder that holds, in this order of preference, model.safetensors,
// model.safetensors.index.json, model.pth or ema.safetensors; or a download with such a folder in it,
// Lance_3B/. `llm_config`: instead of the one beside the weights, unless empty. NotFound says where was
// looked.
absl::StatusOr<SourceFiles> FindSource(const std::string& source, const std::string& llm_config);

}  // namespace lancet
