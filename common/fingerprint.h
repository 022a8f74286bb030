// A short name for what checkpoint files hold, so that ranks can tell whether they hold the same.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/state_dict.h"

namespace lancet {

// 32 hex digits: SHA-256, truncated, over names, element types and shapes of all tensors of trunk and
// autoencoder and, if there is one, vision tower, over samples of their data (up to 768 bytes each:
// beginning, middle and end) and over llm_config.json and the tower's config.json. Equal for equal files
// wherever they lie; files that differ elsewhere in their data may share it.
absl::StatusOr<std::string> CheckpointFingerprint(const StateDict& trunk, const StateDict& vae,
                                                  absl::string_view llm_config_json, const StateDict* vision,
                                                  absl::string_view vision_config_json);

// The same over one file.
absl::StatusOr<std::string> StateDictFingerprint(const StateDict& dict);

}  // namespace lancet
