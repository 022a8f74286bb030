#include "coordinator/request/pretokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace lancet {
namespace {

// Unicode's White_Space. Spelled out, because PCRE2's \s also takes U+180E.
#define LANCET_WHITE_SPACE \
  "\\x09-\\x0d\\x20\\x85\\xa0\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"

constexpr char kPattern[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)"    // English contractions
    "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+"  // a word and what directly precedes it
    "|\\p{N}"                         // digits one by one
    "| ?[^" LANCET_WHITE_SPACE
    "\\p{L}\\p{N}]+[\\r\\n]*"  // punctuation, symbols, marks
    "|[" LANCET_WHITE_SPACE
    "]*[\\r\\n]+"  // line breaks with the space before them
    "|[" LANCET_WHITE_SPACE "]+(?![^" LANCET_WHITE_SPACE
    "])"  // space, less the one that joins a word
    "|[" LANCET_WHITE_SPACE "]+";
#undef LANCET_WHITE_SPACE

// The pattern backtracks over one run of characters at a time, so a match costs a few steps a byte. These
// bound what an oversight could cost; texts are far shorter.
constexpr uint32_t kMatchLimit = 64u << 20;
constexpr uint32_t kHeapLimitKib = 64u << 10;

struct CodeDeleter {
  void operator()(pcre2_code* p) const { pcre2_code_free(p); }
};
struct ContextDeleter {
  void operator()(pcre2_match_context* p) const { pcre2_match_context_free(p); }
};
struct MatchDataDeleter {
  void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
};

std::string ErrorText(int code) {
  PCRE2_UCHAR buffer[256];
  if (pcre2_get_error_message(code, buffer, sizeof(buffer)) < 0) return absl::StrCat("error ", code);
  return reinterpret_cast<const char*>(buffer);
}

}  // namespace

struct Pretokenizer::Pattern {
  std::unique_ptr<pcre2_code, CodeDeleter> code;
  std::unique_ptr<pcre2_match_context, ContextDeleter> context;  // read only while matching
};

Pretokenizer::Pretokenizer(std::unique_ptr<Pattern> pattern) : pattern_(std::move(pattern)) {}
Pretokenizer::Pretokenizer(Pretokenizer&&) noexcept = default;
Pretokenizer& Pretokenizer::operator=(Pretokenizer&&) noexcept = default;
Pretokenizer::~Pretokenizer() = default;

absl::StatusOr<Pretokenizer> Pretokenizer::Create() {
  int error = 0;
  PCRE2_SIZE error_offset = 0;
  auto pattern = std::make_unique<Pattern>();
  pattern->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(kPattern), sizeof(kPattern) - 1,
                                    PCRE2_UTF | PCRE2_UCP, &error, &error_offset, nullptr));
  if (pattern->code == nullptr) {
    return absl::InternalError(
        absl::StrCat("pre-tokeniser pattern at offset ", error_offset, ": ", ErrorText(error)));
  }
  // Without JIT (not built in, or memory that may not be executed) the interpreter gives the same matches.
  (void)pcre2_jit_compile(pattern->code.get(), PCRE2_JIT_COMPLETE);
  pattern->context.reset(pcre2_match_context_create(nullptr));
  if (pattern->context == nullptr) return absl::ResourceExhaustedError("no memory for the pre-tokeniser");
  pcre2_set_match_limit(pattern->context.get(), kMatchLimit);
  pcre2_set_heap_limit(pattern->context.get(), kHeapLimitKib);
  return Pretokenizer(std::move(pattern));
}

absl::Status Pretokenizer::Split(absl::string_view text,
                                 absl::FunctionRef<void(absl::string_view)> sink) const {
  const std::unique_ptr<pcre2_match_data, MatchDataDeleter> match(
      pcre2_match_data_create_from_pattern(pattern_->code.get(), nullptr));
  if (match == nullptr) return absl::ResourceExhaustedError("no memory for the pre-tokeniser");
  const PCRE2_SIZE* span = pcre2_get_ovector_pointer(match.get());
  size_t offset = 0;
  while (offset < text.size()) {
    // The caller vouches for UTF-8; checking the rest of the text again at each piece would be quadratic.
    const int result =
        pcre2_match(pattern_->code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), offset,
                    PCRE2_NO_UTF_CHECK | PCRE2_ANCHORED, match.get(), pattern_->context.get());
    if (result < 0) {
      return absl::InternalError(absl::StrCat("pre-tokeniser at byte ", offset, ": ", ErrorText(result)));
    }
    if (span[1] <= offset) {
      return absl::InternalError(absl::StrCat("pre-tokeniser made no progress at byte ", offset));
    }
    sink(text.substr(offset, span[1] - offset));
    offset = span[1];
  }
  return absl::OkStatus();
}

}  // namespace lancet
