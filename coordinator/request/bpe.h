// Byte pair encoding of one piece of text: bytes are joined pair by pair, the pair of the lowest rank first
// and of equal ranks the leftmost, until no pair is in the table.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"

namespace lancet {

// Immutable after its tables are filled in; Encode is thread-safe.
class Bpe {
 public:
  // `byte_ids[b]` is the token of the single byte b.
  explicit Bpe(const std::array<int32_t, 256>& byte_ids) : byte_ids_(byte_ids) {}

  // Tokens `left` and `right` side by side become `merged`; calls come in order of rank. False if the pair is
  // already there.
  bool AddMerge(int32_t left, int32_t right, int32_t merged);

  // Appends the tokens of `piece`. O(n log n), so that a piece of 100 kB is no attack.
  void Encode(absl::string_view piece, std::vector<int32_t>& ids) const;

 private:
  struct Merge {
    int32_t rank = 0;
    int32_t merged = 0;
  };

  const Merge* Find(int32_t left, int32_t right) const;

  std::array<int32_t, 256> byte_ids_;
  absl::flat_hash_map<uint64_t, Merge> merges_;  // by left << 32 | right
};

}  // namespace lancet
