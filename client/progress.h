// How the progress of a request reads, as text.
#pragma once

#include <string>

#include "absl/time/time.h"
#include "client/generation_client.h"

namespace lancet {

// "0.35 s", "12.3 s", "4 min 05 s".
std::string FormatSeconds(absl::Duration duration);

// "[=========>          ] 12/30  4.2 s, 6.1 s left", at most `columns` characters if that leaves room for a
// bar.
std::string ProgressBar(const ProgressInfo& progress, int columns);

// "step 12 of 30, 4.2 s, 6.1 s left"
std::string ProgressLine(const ProgressInfo& progress);

// Whether a log without a bar should mention this step: ten lines a request or so, the last step among them.
bool IsMilestone(const ProgressInfo& progress);

}  // namespace lancet
