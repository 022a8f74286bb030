#include "tests/chaos/chaos_trace.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"

namespace lancet {
namespace {

// Messages of the coordinator that are about everybody, after the level's letter.
constexpr absl::string_view kAboutAll[] = {"listening ",    "ready",        "not ready",    "rank joined ",
                                           "rank lost ",    "rank leaves ", "rank refused", "group forms ",
                                           "group serves ", "group lost "};

bool Concerns(absl::string_view message, absl::string_view trace_id) {
  if (message.find(trace_id) != absl::string_view::npos) return true;
  return std::any_of(std::begin(kAboutAll), std::end(kAboutAll),
                     [message](absl::string_view start) { return message.substr(0, start.size()) == start; });
}

}  // namespace

std::vector<std::string> PhasesOfSilence(absl::string_view log, const std::vector<ChaosEvent>& faults,
                                         absl::string_view trace_id, absl::Time begin, absl::Time end,
                                         size_t most) {
  std::vector<std::pair<absl::Time, std::string>> found;
  for (const ChaosEvent& fault : faults) {
    if (fault.end < begin || fault.begin > end) continue;
    found.emplace_back(fault.begin, absl::StrFormat("fault: %s, for %.1f s", fault.what,
                                                    absl::ToDoubleSeconds(fault.end - fault.begin)));
  }
  for (const absl::string_view line : absl::StrSplit(log, '\n')) {
    // "2026-01-02T03:04:05.678Z I message"
    const size_t space = line.find(' ');
    absl::Time time;
    if (space == absl::string_view::npos || line.size() < space + 3 ||
        !absl::ParseTime(absl::RFC3339_full, line.substr(0, space), &time, nullptr)) {
      continue;
    }
    const absl::string_view message = line.substr(space + 3);
    if (time >= begin && time <= end && Concerns(message, trace_id)) found.emplace_back(time, message);
  }
  std::stable_sort(found.begin(), found.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<std::string> lines;
  for (const auto& [time, what] : found) {
    if (lines.size() == most) {
      lines.push_back(absl::StrCat("and ", found.size() - most, " more"));
      break;
    }
    lines.push_back(absl::StrFormat("%+.3f s %s", absl::ToDoubleSeconds(time - begin), what));
  }
  return lines;
}

}  // namespace lancet
