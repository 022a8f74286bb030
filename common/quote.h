// Text from files and clients, made fit for a message: escaped, and cut when it is long.
#pragma once

#include <cstddef>
#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace lancet {

// 'text', with control characters and broken UTF-8 escaped; "..." after `max_bytes`.
inline std::string Quote(absl::string_view text, size_t max_bytes = 160) {
  const bool cut = text.size() > max_bytes;
  return absl::StrCat("'", absl::Utf8SafeCEscape(text.substr(0, max_bytes)), cut ? "'..." : "'");
}

}  // namespace lancet
