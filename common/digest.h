// SHA-256 and HMAC-SHA-256 of texts in memory, and comparing secrets.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lancet {

using Sha256Digest = std::array<uint8_t, 32>;

Sha256Digest Sha256(absl::string_view text);
// FIPS 198-1.
Sha256Digest HmacSha256(absl::string_view key, absl::string_view text);

// 64 hex digits in lower case, and back; InvalidArgument for anything else, without repeating it.
std::string ToHex(const Sha256Digest& digest);
absl::StatusOr<Sha256Digest> ParseDigest(absl::string_view hex);

// Takes as long whatever the bytes are; false for texts of different lengths.
bool EqualInConstantTime(absl::string_view a, absl::string_view b);

// What a file holds, without white space at its ends. InvalidArgument names the file if it has more than
// `max_bytes`, less than `min_bytes`, or cannot be read.
absl::StatusOr<std::string> ReadSecretFile(const std::string& path, size_t min_bytes, size_t max_bytes);

}  // namespace lancet
