// Readers of the three files of a Qwen2 tokenizer. They are untrusted: bounded before they are parsed, and
// every reference in them is checked. Errors name the file and the line or token.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "coordinator/request/bpe.h"

namespace lancet {

inline constexpr size_t kMaxTokenizerFileBytes = size_t{32} << 20;

// A token that stands for one string as a whole, outside BPE.
struct AddedToken {
  std::string content;
  int32_t id = 0;
};

// The base vocabulary; ids are 0 to n - 1.
struct Vocabulary {
  std::vector<std::string> token_bytes;                   // by id
  absl::flat_hash_map<std::string, int32_t> by_spelling;  // as spelled in the files: one character per byte
  std::array<int32_t, 256> byte_ids{};                    // the token of every single byte
};

// vocab.json: {"spelling": id, ...}, dense ids, all 256 bytes among them. `source` names the file in errors.
absl::StatusOr<Vocabulary> ParseVocabulary(absl::string_view json, const std::string& source);

// merges.txt: a first line "#version: ..." if any, then "left right" per line, in order of rank.
absl::StatusOr<Bpe> ParseMerges(absl::string_view text, const Vocabulary& vocabulary,
                                const std::string& source);

// `added_tokens_decoder` of tokenizer_config.json: ids follow the `num_base` base tokens without gaps.
// Longest content first, so that the first match in a text is the longest.
absl::StatusOr<std::vector<AddedToken>> ParseAddedTokens(absl::string_view json, int32_t num_base,
                                                         const std::string& source);

}  // namespace lancet
