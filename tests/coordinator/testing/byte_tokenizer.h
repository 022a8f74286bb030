// A tokenizer without a file: token n is the byte n, token 256 ends an answer.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "coordinator/request/tokenizer.h"

namespace lancet {

inline constexpr int32_t kByteTokenizerEnd = 256;

// Null, with a failed expectation, if the tokenizer refuses its own vocabulary.
inline std::unique_ptr<Tokenizer> ByteTokenizer() {
  std::string vocabulary = "{";
  int moved = 0;
  for (int byte = 0; byte < 256; ++byte) {
    // The vocabulary spells bytes that are not printable in Latin-1 by code points from U+0100.
    const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte != 173);
    absl::StrAppend(&vocabulary, byte > 0 ? "," : "",
                    absl::StrFormat("\"\\u%04x\":%d", printable ? byte : 256 + moved, byte));
    if (!printable) ++moved;
  }
  vocabulary += "}";
  auto tokenizer = Tokenizer::Parse({"vocab", "merges", "config"}, vocabulary, "",
                                    R"({"added_tokens_decoder": {"256": {"content": "<|im_end|>"}}})");
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

}  // namespace lancet
