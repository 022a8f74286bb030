#include "coordinator/request/answer_text.h"

#include "common/status_macros.h"
#include "coordinator/request/unicode.h"

namespace lancet {
namespace {

constexpr char kReplacement[] = "\xEF\xBF\xBD";  // U+FFFD

// Bytes of the code point that `lead` starts; 0 if none does.
size_t LengthOf(uint8_t lead) {
  if (lead < 0x80) return 1;
  if (lead < 0xC2) return 0;  // a continuation, or an overlong form
  if (lead < 0xE0) return 2;
  if (lead < 0xF0) return 3;
  return lead <= 0xF4 ? 4 : 0;
}

// Whether `byte` may come after the bytes in `start`: well-formed UTF-8 by table 3-7 of the Unicode standard.
bool Continues(const std::string& start, uint8_t byte) {
  if ((byte & 0xC0) != 0x80) return false;
  if (start.size() > 1) return true;
  switch (static_cast<uint8_t>(start[0])) {
    case 0xE0:
      return byte >= 0xA0;
    case 0xED:
      return byte < 0xA0;
    case 0xF0:
      return byte >= 0x90;
    case 0xF4:
      return byte < 0x90;
    default:
      return true;
  }
}

}  // namespace

void AnswerText::AddByte(uint8_t byte) {
  if (!pending_.empty() && !Continues(pending_, byte)) {
    held_back_ += kReplacement;
    pending_.clear();
  }
  if (pending_.empty() && LengthOf(byte) == 0) {
    held_back_ += kReplacement;
    return;
  }
  pending_ += static_cast<char>(byte);
  if (pending_.size() < LengthOf(static_cast<uint8_t>(pending_[0]))) return;
  held_back_ += pending_;
  pending_.clear();
}

std::string AnswerText::HandOut() {
  absl::string_view certain = StripTrailingWhitespace(held_back_);
  const size_t end = certain.size();
  if (text_.empty()) certain = StripLeadingWhitespace(certain);
  std::string text(certain);
  // White space at the start goes, even while nothing follows it.
  held_back_.erase(0, text_.empty() && text.empty() ? held_back_.size() : end);
  text_ += text;
  return text;
}

absl::StatusOr<std::string> AnswerText::Add(int32_t id) {
  LANCET_ASSIGN_OR_RETURN(const std::string bytes, tokenizer_->Decode({id}));
  for (const char byte : bytes) AddByte(static_cast<uint8_t>(byte));
  return HandOut();
}

std::string AnswerText::Finish() {
  if (!pending_.empty()) {
    held_back_ += kReplacement;
    pending_.clear();
  }
  std::string text = HandOut();
  held_back_.clear();
  return text;
}

}  // namespace lancet
