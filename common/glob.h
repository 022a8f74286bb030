// Patterns for names, as flags take them.
#pragma once

#include "absl/strings/string_view.h"

namespace lancet {

// Whether `pattern` matches the whole of `name`: '*' stands for any run of characters, dots and none
// included, '?' for any one; every other character for itself. Takes at most pattern.size() * name.size()
// steps.
inline bool GlobMatches(absl::string_view pattern, absl::string_view name) {
  size_t p = 0;
  size_t n = 0;
  size_t star = absl::string_view::npos;  // the last '*' seen, and where the name's rest behind it begins
  size_t resume = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = n;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == name[n])) {
      ++p;
      ++n;
    } else if (star != absl::string_view::npos) {
      p = star + 1;
      n = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

}  // namespace lancet
