#include "coordinator/request/tokenizer_files.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/status_macros.h"

namespace lancet {
namespace {

constexpr size_t kMaxFileBytes = 32u << 20;
constexpr size_t kMaxConfigBytes = 4u << 20;  // parsed into a tree, which takes many times its size
constexpr size_t kMaxTokens = 1u << 20;
constexpr size_t kMaxAddedTokens = 4096;
constexpr size_t kMaxTokenBytes = 4096;

absl::Status Invalid(const std::string& source, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(source, ": ", what));
}

absl::Status CheckSize(absl::string_view text, size_t limit, const std::string& source) {
  if (text.size() <= limit) return absl::OkStatus();
  return Invalid(source, absl::StrCat("more than the limit of ", limit, " bytes"));
}

// Names what a file contains in a message: printable, and not longer than a line.
std::string Quote(absl::string_view text) {
  constexpr size_t kMaxShown = 60;
  return absl::StrCat("\"", absl::Utf8SafeCHexEscape(text.substr(0, kMaxShown)),
                      text.size() > kMaxShown ? "..." : "", "\"");
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

// Takes {"spelling": id, ...} as a stream, so that duplicate keys show and nothing but the result is built.
class VocabularyHandler final : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit VocabularyHandler(absl::flat_hash_map<std::string, int32_t>& entries) : entries_(entries) {}

  const std::string& error() const { return error_; }

  bool start_object(std::size_t) override { return depth_++ == 0 || Fail("a nested object"); }
  bool end_object() override { return --depth_ == 0; }
  bool key(string_t& spelling) override {
    key_ = std::move(spelling);
    return entries_.size() < kMaxTokens ||
           Fail(absl::StrCat("more than the limit of ", kMaxTokens, " tokens"));
  }
  bool number_unsigned(number_unsigned_t id) override {
    if (depth_ != 1) return Fail("expected an object");
    if (id >= kMaxTokens)
      return Fail(absl::StrCat("token ", Quote(key_), " has id ", id, ", limit ", kMaxTokens - 1));
    return entries_.try_emplace(std::move(key_), static_cast<int32_t>(id)).second ||
           Fail("a token is listed twice");
  }
  bool number_integer(number_integer_t id) override {
    return Fail(absl::StrCat("token ", Quote(key_), " has id ", id));
  }
  bool number_float(number_float_t, const string_t&) override { return FailType(); }
  bool null() override { return FailType(); }
  bool boolean(bool) override { return FailType(); }
  bool string(string_t&) override { return FailType(); }
  bool binary(binary_t&) override { return FailType(); }
  bool start_array(std::size_t) override { return FailType(); }
  bool end_array() override { return FailType(); }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception&) override {
    return Fail(absl::StrCat("not valid JSON at byte ", position));
  }

 private:
  bool Fail(absl::string_view what) {
    error_ = std::string(what);
    return false;
  }
  bool FailType() { return Fail(absl::StrCat("expected a whole number for token ", Quote(key_))); }

  absl::flat_hash_map<std::string, int32_t>& entries_;
  std::string error_;
  std::string key_;
  int depth_ = 0;
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

absl::StatusOr<std::string> ReadTokenizerFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(absl::StrCat(path, ": cannot be opened"));
  std::string text(kMaxFileBytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad()) return absl::InvalidArgumentError(absl::StrCat(path, ": cannot be read"));
  text.resize(static_cast<size_t>(file.gcount()));
  text.shrink_to_fit();
  LANCET_RETURN_IF_ERROR(CheckSize(text, kMaxFileBytes, path));
  return text;
}

absl::StatusOr<Vocabulary> ParseVocabulary(absl::string_view json, const std::string& source) {
  LANCET_RETURN_IF_ERROR(CheckSize(json, kMaxFileBytes, source));
  Vocabulary vocabulary;
  VocabularyHandler handler(vocabulary.by_spelling);
  if (!nlohmann::json::sax_parse(json.begin(), json.end(), &handler)) return Invalid(source, handler.error());

  const size_t count = vocabulary.by_spelling.size();
  vocabulary.token_bytes.resize(count);
  vocabulary.byte_ids.fill(-1);
  const ByteSpelling byte_spelling;
  for (const auto& [spelling, id] : vocabulary.by_spelling) {
    std::optional<std::string> bytes = byte_spelling.Decode(spelling);
    if (!bytes.has_value() || bytes->empty() || bytes->size() > kMaxTokenBytes) {
      return Invalid(source, absl::StrCat("token ", id, " ", Quote(spelling),
                                          " is empty, too long or has a character that stands for no byte"));
    }
    if (static_cast<size_t>(id) >= count) {
      return Invalid(source, absl::StrCat("token ", Quote(spelling), " has id ", id, ", but there are only ",
                                          count, " tokens"));
    }
    std::string& slot = vocabulary.token_bytes[static_cast<size_t>(id)];
    if (!slot.empty()) return Invalid(source, absl::StrCat("id ", id, " is used twice"));
    if (bytes->size() == 1) vocabulary.byte_ids[static_cast<uint8_t>((*bytes)[0])] = id;
    slot = *std::move(bytes);
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
  LANCET_RETURN_IF_ERROR(CheckSize(text, kMaxFileBytes, source));
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
  LANCET_RETURN_IF_ERROR(CheckSize(json, kMaxConfigBytes, source));
  const nlohmann::json config =
      nlohmann::json::parse(json.begin(), json.end(), nullptr, /*allow_exceptions=*/false);
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
