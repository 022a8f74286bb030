// Keys by which a request that comes again is told from a new one.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace lancet {

inline constexpr size_t kMaxIdempotencyKeyBytes = 128;

// InvalidArgument unless it is empty or at most kMaxIdempotencyKeyBytes of printable ASCII.
absl::Status CheckIdempotencyKey(absl::string_view key);

// The seed of a request that has a key and names no seed: the same after the coordinator was started anew.
uint64_t SeedOfKey(absl::string_view key);

// Of what was asked for: the method and the bytes of the request. Holds within this process.
uint64_t DigestOf(absl::string_view method, absl::string_view wire);

}  // namespace lancet
