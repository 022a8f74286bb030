#include "coordinator/request/idempotency_key.h"

#include <algorithm>
#include <utility>

#include "absl/hash/hash.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace lancet {

absl::Status CheckIdempotencyKey(absl::string_view key) {
  if (key.size() > kMaxIdempotencyKeyBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("idempotency_key: ", key.size(), " bytes, the limit is ", kMaxIdempotencyKeyBytes));
  }
  const auto printable = [](char c) { return absl::ascii_isgraph(static_cast<unsigned char>(c)); };
  if (!std::all_of(key.begin(), key.end(), printable)) {
    return absl::InvalidArgumentError("idempotency_key: only printable ASCII without spaces");
  }
  return absl::OkStatus();
}

uint64_t SeedOfKey(absl::string_view key) {
  // FNV-1a, and a mix so that similar keys give seeds far apart.
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : key) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  hash = (hash ^ (hash >> 33)) * 0xff51afd7ed558ccdu;
  return hash ^ (hash >> 33);
}

uint64_t DigestOf(absl::string_view method, absl::string_view wire) { return absl::HashOf(method, wire); }

}  // namespace lancet
