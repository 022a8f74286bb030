// What text needs before it is tokenised: a check of its UTF-8, canonical composition, trimming.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lancet {

// Where the first byte that is not part of well-formed UTF-8 lies; npos if there is none. Surrogates,
// overlong forms and code points above U+10FFFF are malformed.
size_t FindInvalidUtf8(absl::string_view text);

// Unicode normalisation form C. InvalidArgument names the offset of the first malformed byte. O(n log n) for
// any input, long runs of combining marks included.
absl::StatusOr<std::string> NormalizeNfc(absl::string_view text);

// Without leading and trailing white space, as Python's str.strip() has it: Unicode white space and the four
// separators U+001C to U+001F. `text` is valid UTF-8.
absl::string_view StripWhitespace(absl::string_view text);
absl::string_view StripLeadingWhitespace(absl::string_view text);
absl::string_view StripTrailingWhitespace(absl::string_view text);

}  // namespace lancet
