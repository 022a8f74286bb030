#include "coordinator/request/tokenizer.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/mapped_file.h"
#include "common/status_macros.h"
#include "coordinator/request/tokenizer_files.h"
#include "coordinator/request/unicode.h"

namespace lancet {
namespace {

// Far above any prompt; keeps the 32-bit positions inside BPE safe.
constexpr size_t kMaxTextBytes = 64u << 20;

absl::StatusOr<std::string> Prepare(absl::string_view text) {
  if (text.size() > kMaxTextBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("text of ", text.size(), " bytes is longer than the limit of ", kMaxTextBytes));
  }
  return NormalizeNfc(text);
}

}  // namespace

Tokenizer::Tokenizer(Bpe bpe, Pretokenizer pretokenizer, std::vector<std::string> token_bytes,
                     std::vector<AddedToken> added)
    : bpe_(std::move(bpe)),
      pretokenizer_(std::move(pretokenizer)),
      token_bytes_(std::move(token_bytes)),
      added_(std::move(added)) {}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Load(const TokenizerPaths& paths) {
  LANCET_ASSIGN_OR_RETURN(const std::string vocab, ReadTextFile(paths.vocab, kMaxTokenizerFileBytes));
  LANCET_ASSIGN_OR_RETURN(const std::string merges, ReadTextFile(paths.merges, kMaxTokenizerFileBytes));
  LANCET_ASSIGN_OR_RETURN(const std::string config, ReadTextFile(paths.config, kMaxTokenizerFileBytes));
  return Parse(paths, vocab, merges, config);
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Parse(const TokenizerPaths& paths,
                                                            absl::string_view vocab_json,
                                                            absl::string_view merges_txt,
                                                            absl::string_view config_json) {
  LANCET_ASSIGN_OR_RETURN(Vocabulary vocabulary, ParseVocabulary(vocab_json, paths.vocab));
  LANCET_ASSIGN_OR_RETURN(Bpe bpe, ParseMerges(merges_txt, vocabulary, paths.merges));
  LANCET_ASSIGN_OR_RETURN(
      std::vector<AddedToken> added,
      ParseAddedTokens(config_json, static_cast<int32_t>(vocabulary.token_bytes.size()), paths.config));
  LANCET_ASSIGN_OR_RETURN(Pretokenizer pretokenizer, Pretokenizer::Create());
  std::vector<std::string> token_bytes = std::move(vocabulary.token_bytes);
  token_bytes.resize(token_bytes.size() + added.size());
  for (const AddedToken& token : added) token_bytes[static_cast<size_t>(token.id)] = token.content;
  return std::unique_ptr<Tokenizer>(
      new Tokenizer(std::move(bpe), std::move(pretokenizer), std::move(token_bytes), std::move(added)));
}

absl::Status Tokenizer::EncodePlain(absl::string_view text, std::vector<int32_t>& ids) const {
  return pretokenizer_.Split(text, [&](absl::string_view piece) { bpe_.Encode(piece, ids); });
}

absl::StatusOr<std::vector<int32_t>> Tokenizer::Encode(absl::string_view text) const {
  LANCET_ASSIGN_OR_RETURN(const std::string normalized, Prepare(text));
  std::vector<int32_t> ids;
  LANCET_RETURN_IF_ERROR(EncodePlain(normalized, ids));
  return ids;
}

absl::StatusOr<std::vector<int32_t>> Tokenizer::EncodeWithSpecials(absl::string_view text) const {
  LANCET_ASSIGN_OR_RETURN(const std::string normalized, Prepare(text));
  std::vector<int32_t> ids;
  absl::string_view rest = normalized;
  size_t plain = 0;  // bytes at the start of `rest` that belong to no added token
  while (plain < rest.size()) {
    const AddedToken* token = FindAddedTokenAt(rest.substr(plain));
    if (token == nullptr) {
      ++plain;
      continue;
    }
    LANCET_RETURN_IF_ERROR(EncodePlain(rest.substr(0, plain), ids));
    ids.push_back(token->id);
    rest.remove_prefix(plain + token->content.size());
    plain = 0;
  }
  LANCET_RETURN_IF_ERROR(EncodePlain(rest, ids));
  return ids;
}

const AddedToken* Tokenizer::FindAddedTokenAt(absl::string_view text) const {
  for (const AddedToken& token : added_) {
    if (absl::StartsWith(text, token.content)) return &token;
  }
  return nullptr;
}

absl::StatusOr<std::string> Tokenizer::Decode(absl::Span<const int32_t> ids) const {
  std::string bytes;
  for (const int32_t id : ids) {
    if (id < 0 || id >= size()) {
      return absl::InvalidArgumentError(absl::StrCat("token ", id, " is outside 0 to ", size() - 1));
    }
    bytes += token_bytes_[static_cast<size_t>(id)];
  }
  return bytes;
}

std::optional<int32_t> Tokenizer::AddedTokenId(absl::string_view content) const {
  for (const AddedToken& token : added_) {
    if (token.content == content) return token.id;
  }
  return std::nullopt;
}

}  // namespace lancet
