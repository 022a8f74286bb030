// How a rank shows that it knows the group's shared secret without sending it: the coordinator begins every
// stream with a number of its own (a nonce), and the rank's Register carries an HMAC over that number and
// what it registers as. A Register that was overheard is worth nothing on another stream.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace lancet {

// Metadata that the coordinator begins the stream with; its value is the nonce.
inline constexpr char kRankNonceKey[] = "lancet-nonce";
// Of a secret file: 16 bytes are 128 bits if they are random.
inline constexpr size_t kMinSecretBytes = 16;
inline constexpr size_t kMaxSecretBytes = 4096;

struct RankClaim {
  absl::string_view group;
  int32_t rank = 0;
  int32_t world_size = 0;
  absl::string_view fingerprint;
};

// 64 hex digits.
std::string RankProof(absl::string_view secret, absl::string_view nonce, const RankClaim& claim);

}  // namespace lancet
