// How far a long run has come, on a terminal as a bar, elsewhere as a line for every tenth.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace lancet {

class ProgressBar {
 public:
  // `stream` outlives the bar; `is_terminal`: whether it can be drawn over.
  ProgressBar(std::FILE* stream, bool is_terminal) : stream_(stream), is_terminal_(is_terminal) {}

  // Bytes. Draws at most ten times a second, and always at the end.
  void Update(uint64_t done, uint64_t total, absl::Time now);
  // "[#####     ]  50 %  1.2 of 2.4 GB"
  static std::string Text(uint64_t done, uint64_t total);

 private:
  std::FILE* const stream_;
  const bool is_terminal_;
  absl::Time last_ = absl::InfinitePast();
  uint64_t tenths_ = 0;
  bool finished_ = false;
};

}  // namespace lancet
