// Pictures in the text of a terminal: the escape sequences of kitty, iTerm2 and sixel terminals.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lancet {

enum class InlineProtocol { kKitty, kIterm2, kSixel };

// The bytes that make a terminal of this kind draw a PNG file at the cursor, ending with a line break.
// InvalidArgument if the file has to be decoded (sixel) and is not a PNG of at most 4096 pixels a side.
absl::StatusOr<std::string> InlineImage(absl::string_view png, InlineProtocol protocol);

// What a terminal says about itself.
struct TerminalHints {
  std::string term;             // $TERM
  std::string term_program;     // $TERM_PROGRAM
  std::string kitty_window_id;  // $KITTY_WINDOW_ID
  std::string da1_reply;        // its answer to ESC [ c; empty if it was not asked or did not answer
};

// True if the hints already settle the matter, so that the terminal need not be asked.
bool KnownByName(const TerminalHints& hints);
// Unavailable if the terminal is not known to show pictures.
absl::StatusOr<InlineProtocol> DetectInlineProtocol(const TerminalHints& hints);

}  // namespace lancet
