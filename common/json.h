// JSON of files that are not trusted: bounded size and depth, no duplicate keys, errors as values.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lancet {

struct JsonLimits {
  size_t max_bytes = size_t{64} << 20;  // a vocabulary of 151 k entries has 3 MB
  int max_depth = 32;
};

// InvalidArgument names `source` and the byte where it goes wrong.
absl::StatusOr<nlohmann::json> ParseJson(absl::string_view text, absl::string_view source,
                                         const JsonLimits& limits = {});

}  // namespace lancet
