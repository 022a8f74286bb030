// Which Linears stay in bf16: what --linears says.
#pragma once

#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/trunk_layout.h"

namespace lancet {

// Names of the Linears that stay in bf16. `rules`: "PATTERN=bf16" or "PATTERN=nvfp4", separated by commas;
// patterns as in common/glob.h over whole names without ".weight". The last rule that fits decides; without
// one a Linear is quantised. InvalidArgument for another form, a pattern that matches no Linear, more than 64
// rules or patterns of more than 256 bytes.
absl::StatusOr<absl::flat_hash_set<std::string>> LinearsInBf16(absl::string_view rules,
                                                               const std::vector<TrunkLinear>& linears);

}  // namespace lancet
