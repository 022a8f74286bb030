// Puts preview coefficients into a lancet.json, leaving its other fields as they are.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/model_config.h"

namespace lancet {

// The text of a lancet.json with `map` as its "latent_rgb", rounded to five digits. `old_text` may be empty:
// a new file. InvalidArgument, naming `source`, if it is no lancet.json.
absl::StatusOr<std::string> CardWithLatentRgb(const std::string& old_text, const std::string& source,
                                              const LatentRgb& map);

// Reads `path` if it is there and replaces it as a whole, so that a reader never sees half a file.
absl::Status WriteLatentRgb(const std::string& path, const LatentRgb& map);

}  // namespace lancet
