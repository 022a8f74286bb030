#include "client/progress.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace lancet {
namespace {

// A shorter bar says nothing, a longer one nothing more.
constexpr int kMinBar = 10;
constexpr int kMaxBar = 40;
constexpr int kMilestones = 10;

std::string Times(const ProgressInfo& progress) {
  return absl::StrCat(FormatSeconds(progress.elapsed), ", ", FormatSeconds(progress.estimated_remaining),
                      " left");
}

}  // namespace

std::string FormatSeconds(absl::Duration duration) {
  const double seconds = absl::ToDoubleSeconds(duration);
  if (seconds < 9.995) return absl::StrFormat("%.2f s", seconds);
  if (seconds < 99.95) return absl::StrFormat("%.1f s", seconds);
  const int64_t whole = std::lround(seconds);
  return absl::StrFormat("%d min %02d s", whole / 60, whole % 60);
}

std::string ProgressBar(const ProgressInfo& progress, int columns) {
  const int total = std::max(1, progress.total_steps);
  const int step = std::clamp(progress.step, 0, total);
  const std::string text = absl::StrCat(" ", step, "/", total, "  ", Times(progress));
  const int room = columns - static_cast<int>(text.size()) - 2;
  const int width = std::clamp(room, kMinBar, kMaxBar);
  const int done = static_cast<int>(int64_t{width} * step / total);
  std::string bar(static_cast<size_t>(done), '=');
  if (done > 0 && done < width) bar.back() = '>';
  bar.resize(static_cast<size_t>(width), ' ');
  return absl::StrCat("[", bar, "]", text);
}

std::string ProgressLine(const ProgressInfo& progress) {
  return absl::StrCat("step ", progress.step, " of ", progress.total_steps, ", ", Times(progress));
}

bool IsMilestone(const ProgressInfo& progress) {
  if (progress.step == progress.total_steps) return true;
  return progress.step % std::max(1, progress.total_steps / kMilestones) == 0;
}

}  // namespace lancet
