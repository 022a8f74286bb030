#include "coordinator/request/tokenizer_files.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/json.h"
#include "common/quote.h"
#include "common/status_macros.h"

namespace lancet {
namespace {

constexpr JsonLimits kVocabularyLimits = {.max_bytes = kMaxTokenizerFileBytes, .max_depth = 1};
constexpr JsonLimits kConfigLimits = {.max_bytes = size_t{4} << 20, .max_depth = 16};
constexpr size_t kMaxTokens = 1u << 20;
constexpr size_t kMaxAddedTokens = 4096;
constexpr size_t kMaxTokenBytes = 4096;

absl::Status Invalid(const std::string& source, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(source, ": ", what));
}

// Vocabulary files spell each byte as one printable character: Latin-1 characters that print stand for
// themselves, the 68 other bytes, in order, for U+0100 and up.
class ByteSpelling {
 public:
  ByteSpelling() {
    code_points_.fill(-1);
    int next = 256;
    for (int byte = 0; byte < 256; ++byte) {
      const bool prints = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
      code_points_[static_cast<size_t>(prints ? byte : next++)] = byte;
    }
  }

  // The bytes that a spelling stands for; nullopt if a character stands for none. Characters of one or two
  // bytes of UTF-8 are enough for U+0143, the last one in use.
  std::optional<std::string> Decode(absl::string_view spelling) const {
    std::string bytes;
    for (size_t i = 0; i < spelling.size(); ++i) {
      const auto lead = static_cast<uint8_t>(spelling[i]);
      size_t code_point = lead;
      if (lead >= 0x80) {
        if ((lead & 0xe0) != 0xc0 || i + 1 == spelling.size()) return std::nullopt;
        const auto trail = static_cast<uint8_t>(spelling[++i]);
        if ((trail & 0xc0) != 0x80) return std::nullopt;
        code_point = (lead & 0x1fu) << 6 | (trail & 0x3fu);
      }
      if (code_point >= code_points_.size() || code_points_[code_point] < 0) return std::nullopt;
      bytes.push_back(static_cast<char>(code_points_[code_point]));
    }
    return bytes;
  }

 private:
  std::array<int, 256 + 68> code_points_{};  // to bytes; -1: none
};

// The id of one spelling in a line of merges.txt.
absl::StatusOr<int32_t> FindToken(const Vocabulary& vocabulary, absl::string_view spelling, size_t line,
                                  const std::string& source) {
  const auto it = vocabulary.by_spelling.find(spelling);
  if (it == vocabulary.by_spelling.end()) {
    return Invalid(source, absl::StrCat("line ", line, ": ", Quote(spelling), " is not in the vocabulary"));
  }
  return it->second;
}

bool IsTrue(const nlohmann::json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_boolean() && it->get<bool>();
}

}  // namespace

absl::StatusOr<Vocabulary> ParseVocabulary(absl::string_view json, const std::string& source) {
  LANCET_ASSIGN_OR_RETURN(const nlohmann::json entries, ParseJson(json, source, kVocabularyLimits));
  if (!entries.is_object()) return Invalid(source, "not a JSON object");
  if (entries.size() > kMaxTokens) {
    return Invalid(source, absl::StrCat(entries.size(), " tokens, limit ", kMaxTokens));
  }
  Vocabulary vocabulary;
  vocabulary.token_bytes.resize(entries.size());
  vocabulary.byte_ids.fill(-1);
  const ByteSpelling byte_spelling;
  for (const auto& [spelling, value] : entries.items()) {
    if (!value.is_number_unsigned() || value.get<uint64_t>() >= entries.size()) {
      return Invalid(source, absl::StrCat("token ", Quote(spelling), " has id ", Quote(value.dump()),
                                          ", expected 0 to ", entries.size() - 1));
    }
    const auto id = value.get<int32_t>();
    std::optional<std::string> bytes = byte_spelling.Decode(spelling);
    if (!bytes.has_value() || bytes->empty() || bytes->size() > kMaxTokenBytes) {
      return Invalid(source, absl::StrCat("token ", id, " ", Quote(spelling),
                                          " is empty, too long or has a character that stands for no byte"));
    }
    std::string& slot = vocabulary.token_bytes[static_cast<size_t>(id)];
    if (!slot.empty()) return Invalid(source, absl::StrCat("id ", id, " is used twice"));
    if (bytes->size() == 1) vocabulary.byte_ids[static_cast<uint8_t>((*bytes)[0])] = id;
    slot = *std::move(bytes);
    vocabulary.by_spelling.try_emplace(spelling, id);
  }
  for (size_t byte = 0; byte < 256; ++byte) {
    if (vocabulary.byte_ids[byte] < 0) {
      return Invalid(source,
                     absl::StrCat("no token for the single byte 0x", absl::Hex(byte, absl::kZeroPad2)));
    }
  }
  return vocabulary;
}

absl::StatusOr<Bpe> ParseMerges(absl::string_view text, const Vocabulary& vocabulary,
                                const std::string& source) {
  if (text.size() > kMaxTokenizerFileBytes) {
    return Invalid(source, absl::StrCat(text.size(), " bytes, limit ", kMaxTokenizerFileBytes));
  }
  Bpe bpe(vocabulary.byte_ids);
  size_t number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    absl::ConsumeSuffix(&line, "\r");
    if (line.empty() || (number == 1 && absl::StartsWith(line, "#version:"))) continue;
    const std::pair<absl::string_view, absl::string_view> parts =
        absl::StrSplit(line, absl::MaxSplits(' ', 1));
    LANCET_ASSIGN_OR_RETURN(const int32_t left, FindToken(vocabulary, parts.first, number, source));
    LANCET_ASSIGN_OR_RETURN(const int32_t right, FindToken(vocabulary, parts.second, number, source));
    LANCET_ASSIGN_OR_RETURN(const int32_t merged,
                            FindToken(vocabulary, absl::StrCat(parts.first, parts.second), number, source));
    if (!bpe.AddMerge(left, right, merged)) {
      return Invalid(source, absl::StrCat("line ", number, ": ", Quote(line), " is listed twice"));
    }
  }
  return bpe;
}

absl::StatusOr<std::vector<AddedToken>> ParseAddedTokens(absl::string_view json, int32_t num_base,
                                                         const std::string& source) {
  LANCET_ASSIGN_OR_RETURN(const nlohmann::json config, ParseJson(json, source, kConfigLimits));
  if (!config.is_object()) return Invalid(source, "not a JSON object");
  const auto decoder = config.find("added_tokens_decoder");
  if (decoder == config.end() || !decoder->is_object()) {
    return Invalid(source, "added_tokens_decoder is missing or not an object");
  }
  if (decoder->size() > kMaxAddedTokens) {
    return Invalid(source, absl::StrCat("added_tokens_decoder has ", decoder->size(), " entries, limit ",
                                        kMaxAddedTokens));
  }
  std::vector<AddedToken> added;
  std::vector<bool> seen(decoder->size(), false);
  for (const auto& [key, value] : decoder->items()) {
    int32_t id = 0;
    if (!absl::SimpleAtoi(key, &id) || id < num_base || id - num_base >= static_cast<int32_t>(seen.size()) ||
        seen[static_cast<size_t>(id - num_base)]) {
      return Invalid(source, absl::StrCat("added_tokens_decoder: id ", Quote(key), " is not unique in ",
                                          num_base, " to ", num_base + seen.size() - 1));
    }
    seen[static_cast<size_t>(id - num_base)] = true;
    const auto content = value.is_object() ? value.find("content") : value.end();
    if (!value.is_object() || content == value.end() || !content->is_string()) {
      return Invalid(source, absl::StrCat("added_tokens_decoder: ", id, " has no content"));
    }
    std::string text = content->get<std::string>();
    if (text.empty() || text.size() > kMaxTokenBytes) {
      return Invalid(source, absl::StrCat("added_tokens_decoder: content of ", id, " has ", text.size(),
                                          " bytes, expected 1 to ", kMaxTokenBytes));
    }
    for (const char* flag : {"lstrip", "rstrip", "single_word"}) {
      if (IsTrue(value, flag)) {
        return Invalid(source, absl::StrCat("added_tokens_decoder: ", id, " asks for ", flag,
                                            ", which Qwen2 tokenizers do not use"));
      }
    }
    added.push_back({std::move(text), id});
  }
  std::sort(added.begin(), added.end(), [](const AddedToken& a, const AddedToken& b) {
    return a.content.size() != b.content.size() ? a.content.size() > b.content.size() : a.content < b.content;
  });
  const auto twin =
      std::adjacent_find(added.begin(), added.end(),
                         [](const AddedToken& a, const AddedToken& b) { return a.content == b.content; });
  if (twin != added.end()) {
    return Invalid(source, absl::StrCat("added_tokens_decoder: ", Quote(twin->content), " is listed twice"));
  }
  return added;
}

}  // namespace lancet
