// Structured log lines on stderr, one each: "2026-01-02T03:04:05.678Z I message key=value key=\"two words\"",
// or the same as a JSON object. Never log prompts, tokens, secrets or image bytes.
#pragma once

#include <string>
#include <type_traits>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace lancet {

enum class LogLevel { kInfo, kWarning, kError };
enum class LogFormat { kText, kJson };

// A key and its value, already printed.
struct LogField {
  template <typename T>
  LogField(absl::string_view k, const T& v) : key(k), value(absl::StrCat(v)), number(IsNumber<T>()) {}
  std::string key;
  std::string value;
  bool number = false;  // stands without quotes in JSON

 private:
  // Numbers of 64 bits are text there: most readers of JSON have doubles.
  template <typename T>
  static constexpr bool IsNumber() {
    return std::is_integral_v<T> && !std::is_same_v<T, bool> && sizeof(T) <= 4;
  }
};

// Seconds with three decimals.
LogField SecondsField(absl::string_view key, double seconds);

// InvalidArgument unless "text" or "json".
absl::StatusOr<LogFormat> ParseLogFormat(absl::string_view text);
// Of the process, as stderr is; main sets it before there is a second thread. Text at first.
void SetLogFormat(LogFormat format);

// One line with its end, as Log writes it. `time` as in the examples above.
std::string FormatLogLine(LogFormat format, absl::string_view time, LogLevel level, absl::string_view message,
                          const std::vector<LogField>& fields);

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
