#include "coordinator/request/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace lancet {
namespace {

// The longest canonical decomposition of one code point has 4 (Unicode's stated maximum); room to spare.
constexpr int kMaxDecomposition = 16;

bool IsPythonSpace(utf8proc_int32_t c) {
  switch (c) {
    case 0x20:
    case 0x85:
    case 0xa0:
    case 0x1680:
    case 0x2028:
    case 0x2029:
    case 0x202f:
    case 0x205f:
    case 0x3000:
      return true;
    default:
      return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x1f) || (c >= 0x2000 && c <= 0x200a);
  }
}

// Reads one code point; returns its length in bytes, 0 or less at malformed input.
utf8proc_ssize_t ReadCodePoint(absl::string_view text, utf8proc_int32_t& c) {
  return utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                          static_cast<utf8proc_ssize_t>(text.size()), &c);
}

int CombiningClass(utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; }

// utf8proc sorts marks by swapping neighbours, which is quadratic in the length of a run of marks, and a
// client chooses that length; so runs are sorted here, before utf8proc sees them.
void OrderCombiningMarks(std::vector<utf8proc_int32_t>& points) {
  auto begin = points.begin();
  while (begin != points.end()) {
    if (CombiningClass(*begin) == 0) {
      ++begin;
      continue;
    }
    const auto end =
        std::find_if(begin, points.end(), [](utf8proc_int32_t c) { return CombiningClass(c) == 0; });
    std::stable_sort(begin, end, [](utf8proc_int32_t a, utf8proc_int32_t b) {
      return CombiningClass(a) < CombiningClass(b);
    });
    begin = end;
  }
}

}  // namespace

size_t FindInvalidUtf8(absl::string_view text) {
  size_t offset = 0;
  while (offset < text.size()) {
    utf8proc_int32_t c = 0;
    const utf8proc_ssize_t length = ReadCodePoint(text.substr(offset), c);
    if (length <= 0) return offset;
    offset += static_cast<size_t>(length);
  }
  return absl::string_view::npos;
}

absl::StatusOr<std::string> NormalizeNfc(absl::string_view text) {
  std::vector<utf8proc_int32_t> points;
  points.reserve(text.size());
  size_t offset = 0;
  bool ascii = true;
  while (offset < text.size()) {
    utf8proc_int32_t c = 0;
    const utf8proc_ssize_t length = ReadCodePoint(text.substr(offset), c);
    if (length <= 0) {
      return absl::InvalidArgumentError(absl::StrCat("text is not valid UTF-8 at byte ", offset));
    }
    offset += static_cast<size_t>(length);
    ascii = ascii && length == 1;
    utf8proc_int32_t parts[kMaxDecomposition];
    const utf8proc_ssize_t count = utf8proc_decompose_char(
        c, parts, kMaxDecomposition, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE),
        nullptr);
    if (count < 0 || count > kMaxDecomposition) {
      return absl::InternalError(absl::StrCat("no decomposition for code point ", c));
    }
    points.insert(points.end(), parts, parts + count);
  }
  if (ascii) return std::string(text.data(), text.size());  // every ASCII text is in form C

  OrderCombiningMarks(points);
  const utf8proc_ssize_t composed =
      utf8proc_normalize_utf32(points.data(), static_cast<utf8proc_ssize_t>(points.size()),
                               static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  if (composed < 0) return absl::InternalError("canonical composition failed");
  std::string result;
  result.reserve(text.size());
  for (utf8proc_ssize_t i = 0; i < composed; ++i) {
    utf8proc_uint8_t bytes[4];
    const utf8proc_ssize_t length = utf8proc_encode_char(points[static_cast<size_t>(i)], bytes);
    result.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(length));
  }
  return result;
}

absl::string_view StripLeadingWhitespace(absl::string_view text) {
  while (!text.empty()) {
    utf8proc_int32_t c = 0;
    const utf8proc_ssize_t length = ReadCodePoint(text, c);
    if (length <= 0 || !IsPythonSpace(c)) break;
    text.remove_prefix(static_cast<size_t>(length));
  }
  return text;
}

absl::string_view StripTrailingWhitespace(absl::string_view text) {
  while (!text.empty()) {
    size_t start = text.size() - 1;
    while (start > 0 && (static_cast<uint8_t>(text[start]) & 0xc0) == 0x80) --start;  // continuation bytes
    utf8proc_int32_t c = 0;
    if (ReadCodePoint(text.substr(start), c) <= 0 || !IsPythonSpace(c)) break;
    text.remove_suffix(text.size() - start);
  }
  return text;
}

absl::string_view StripWhitespace(absl::string_view text) {
  return StripTrailingWhitespace(StripLeadingWhitespace(text));
}

}  // namespace lancet
