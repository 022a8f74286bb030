#include "tools/quantize/progress_bar.h"

#include <algorithm>

#include "absl/strings/str_format.h"

namespace lancet {

std::string ProgressBar::Text(uint64_t done, uint64_t total) {
  constexpr int kWidth = 30;
  const double share = total == 0 ? 1.0 : static_cast<double>(done) / static_cast<double>(total);
  const int filled = std::clamp(static_cast<int>(share * kWidth), 0, kWidth);
  const bool large = total >= 1'000'000'000;
  const double unit = large ? 1e9 : 1e6;
  return absl::StrFormat("[%s%s] %3d %%  %.2f of %.2f %s", std::string(filled, '#'),
                         std::string(kWidth - filled, ' '), static_cast<int>(share * 100),
                         static_cast<double>(done) / unit, static_cast<double>(total) / unit,
                         large ? "GB" : "MB");
}

void ProgressBar::Update(uint64_t done, uint64_t total, absl::Time now) {
  if (finished_) return;
  finished_ = done >= total;
  if (is_terminal_) {
    if (!finished_ && now - last_ < absl::Milliseconds(100)) return;
    last_ = now;
    absl::FPrintF(stream_, "\r%s%s", Text(done, total), finished_ ? "\n" : "");
  } else {
    const uint64_t tenths = total == 0 ? 10 : done * 10 / total;
    if (tenths == tenths_) return;
    tenths_ = tenths;
    absl::FPrintF(stream_, "%s\n", Text(done, total));
  }
  std::fflush(stream_);
}

}  // namespace lancet
