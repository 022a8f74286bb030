// Structured log lines on stderr: one line each, "2026-01-02T03:04:05.678Z I message key=value key=\"two
// words\"". Never log prompts, tokens or image bytes.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace lancet {

enum class LogLevel { kInfo, kWarning, kError };

// A key and its value, already printed.
struct LogField {
  template <typename T>
  LogField(absl::string_view k, const T& v) : key(k), value(absl::StrCat(v)) {}
  std::string key;
  std::string value;
};

// Thread-safe; a line is written at once.
void Log(LogLevel level, absl::string_view message, const std::vector<LogField>& fields = {});

inline void LogInfo(absl::string_view message, const std::vector<LogField>& fields = {}) {
  Log(LogLevel::kInfo, message, fields);
}
inline void LogWarning(absl::string_view message, const std::vector<LogField>& fields = {}) {
  Log(LogLevel::kWarning, message, fields);
}
inline void LogError(absl::string_view message, const std::vector<LogField>& fields = {}) {
  Log(LogLevel::kError, message, fields);
}

}  // namespace lancet
