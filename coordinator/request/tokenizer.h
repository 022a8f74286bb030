// The tokenizer of Qwen2: NFC, a pre-tokeniser that cuts text into pieces, byte-level BPE inside each piece.
// Reads vocab.json, merges.txt and tokenizer_config.json, which are untrusted: sizes are bounded before
// parsing and every reference is checked.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "coordinator/request/bpe.h"
#include "coordinator/request/pretokenizer.h"
#include "coordinator/request/tokenizer_files.h"

namespace lancet {

struct TokenizerPaths {
  std::string vocab;   // vocab.json
  std::string merges;  // merges.txt
  std::string config;  // tokenizer_config.json: the added tokens
};

// Immutable after creation, so thread-safe.
class Tokenizer {
 public:
  // InvalidArgument or NotFound names the file and what is wrong in it.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const TokenizerPaths& paths);

  // The same from the texts of the three files; `paths` only names them in errors.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Parse(const TokenizerPaths& paths,
                                                          absl::string_view vocab_json,
                                                          absl::string_view merges_txt,
                                                          absl::string_view config_json);

  // Everything is plain text, special tokens' spellings too: what users type. InvalidArgument if the text is
  // not UTF-8. Costs O(n log n).
  absl::StatusOr<std::vector<int32_t>> Encode(absl::string_view text) const;

  // Added tokens in the text become their ids: for text of our own.
  absl::StatusOr<std::vector<int32_t>> EncodeWithSpecials(absl::string_view text) const;

  // The bytes of the tokens; InvalidArgument names an id that does not exist.
  absl::StatusOr<std::string> Decode(absl::Span<const int32_t> ids) const;

  // Id of an added token, by content.
  std::optional<int32_t> AddedTokenId(absl::string_view content) const;

  // Base and added tokens; ids are 0 to size() - 1.
  int32_t size() const { return static_cast<int32_t>(token_bytes_.size()); }

 private:
  Tokenizer(Bpe bpe, Pretokenizer pretokenizer, std::vector<std::string> token_bytes,
            std::vector<AddedToken> added);

  // `text` is in form C.
  absl::Status EncodePlain(absl::string_view text, std::vector<int32_t>& ids) const;
  // The longest added token that `text` starts with; null if none.
  const AddedToken* FindAddedTokenAt(absl::string_view text) const;

  const Bpe bpe_;
  const Pretokenizer pretokenizer_;
  const std::vector<std::string> token_bytes_;  // by id
  const std::vector<AddedToken> added_;         // longest first
};

}  // namespace lancet
