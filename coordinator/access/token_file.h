// Who may call the public port. A file with one bearer token a line, as the operator keeps it:
//
//   # name  hash of the token            what it may do
//   alice   sha256:<64 hex digits>       max_concurrent=4 pixel_steps_per_minute=100000000 queue_share=0.5
//   ops     sha256:<64 hex digits>       admin
//
// Only hashes are kept, so the file gives nobody a token. A plain SHA-256 is enough for tokens of 128 random
// bits and more, which nobody can try out; it would not be for passwords.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/digest.h"

namespace lancet {

// 0 means no limit of its own.
struct TokenLimits {
  int32_t max_concurrent = 0;          // calls at the same time
  int64_t pixel_steps_per_minute = 0;  // width * height * steps; a picture to look at counts as one step
  double queue_share = 1;              // of the places in the queue, above 0 to 1
};

struct TokenEntry {
  std::string name;  // for logs; 1 to 64 letters, digits, '.', '_' or '-'
  Sha256Digest hash{};
  TokenLimits limits;
  bool admin = false;  // may ask for the service's status
};

// InvalidArgument names line and field. At most 1000 tokens; names and hashes come once.
absl::StatusOr<std::vector<TokenEntry>> ParseTokenFile(absl::string_view text);

}  // namespace lancet
