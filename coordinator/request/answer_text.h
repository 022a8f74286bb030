// An answer's text as its tokens come. Tokens are bytes, not characters: a character may be spread over
// several tokens, and some tokens hold no valid text. What has been handed out never changes:
//   a code point is handed out whole, once its last byte is there
//   bytes that can no longer become one are U+FFFD, one for each maximal part of a code point, as in Python's
//   decode(errors="replace")
//   white space at the start is dropped, white space elsewhere is held back until something follows it
// So all that was handed out, one after the other, is the whole answer decoded and stripped.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "coordinator/request/tokenizer.h"

namespace lancet {

// Not thread-safe.
class AnswerText {
 public:
  // `tokenizer` outlives this.
  explicit AnswerText(const Tokenizer* tokenizer) : tokenizer_(tokenizer) {}

  // The text that is certain with this token; often empty. Special tokens are text like others; the token
  // that ends the answer must not come here. InvalidArgument names an id that does not exist.
  absl::StatusOr<std::string> Add(int32_t id);

  // After the last token: what was still open.
  std::string Finish();

  // All that was handed out.
  const std::string& text() const { return text_; }

 private:
  void AddByte(uint8_t byte);
  std::string HandOut();

  const Tokenizer* const tokenizer_;
  std::string pending_;    // the start of a code point, at most 3 bytes
  std::string held_back_;  // decoded; white space that may turn out to be at the end
  std::string text_;
};

}  // namespace lancet
