// Any bytes as a prompt: refused exactly if they are not UTF-8, else decoding gives the text in form C again,
// and encoding that gives the same tokens.

#include <memory>
#include <string>
#include <vector>

#include "coordinator/request/tokenizer.h"
#include "coordinator/request/unicode.h"
#include "tests/fuzz/fuzzing.h"

namespace lancet {
namespace {

std::unique_ptr<Tokenizer> LoadTokenizer() {
  const std::string folder = LANCET_TEST_DATA "/tokenizer_tiny";
  auto tokenizer =
      Tokenizer::Load({folder + "/vocab.json", folder + "/merges.txt", folder + "/tokenizer_config.json"});
  Require(tokenizer.ok(), "the tokenizer of the tests can be loaded");
  return *std::move(tokenizer);
}

void FuzzText(const Tokenizer& tokenizer, absl::string_view text) {
  const auto ids = tokenizer.Encode(text);
  const bool valid = FindInvalidUtf8(text) == absl::string_view::npos;
  Require(ids.ok() == valid, "text is encoded exactly if it is UTF-8");
  Require(tokenizer.EncodeWithSpecials(text).ok() == valid, "with special tokens, too");
  if (!valid) return;
  for (const int32_t id : *ids) Require(id >= 0 && id < tokenizer.size(), "ids are those of tokens");
  const auto normalised = NormalizeNfc(text);
  const auto decoded = tokenizer.Decode(*ids);
  Require(normalised.ok() && decoded.ok(), "what was encoded can be decoded");
  Require(*decoded == *normalised, "decoding gives the text in form C");
  const auto again = tokenizer.Encode(*decoded);
  Require(again.ok() && *again == *ids, "encoding is repeatable");
  const absl::string_view stripped = StripWhitespace(text);
  Require(stripped.size() <= text.size() && StripWhitespace(stripped) == stripped, "stripping is final");
}

// Bytes as token ids, two each.
void FuzzIds(const Tokenizer& tokenizer, absl::string_view bytes) {
  std::vector<int32_t> ids;
  bool known = true;
  for (size_t i = 0; i + 1 < bytes.size(); i += 2) {
    const int16_t id = static_cast<int16_t>(static_cast<uint8_t>(bytes[i]) | bytes[i + 1] << 8);
    ids.push_back(id);
    known = known && id >= 0 && id < tokenizer.size();
  }
  Require(tokenizer.Decode(ids).ok() == known, "known ids are decoded, others are refused");
}

}  // namespace
}  // namespace lancet

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto tokenizer = lancet::LoadTokenizer();
  lancet::FuzzText(*tokenizer, lancet::AsText(data, size));
  lancet::FuzzIds(*tokenizer, lancet::AsText(data, size));
  return 0;
}
