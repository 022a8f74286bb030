#include "common/logging.h"

#include <unistd.h>

#include <atomic>
#include <cmath>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "nlohmann/json.hpp"

namespace lancet {
namespace {

std::atomic<LogFormat> log_format{LogFormat::kText};

bool IsPlain(absl::string_view value) {
  if (value.empty()) return false;
  for (const char c : value) {
    if (c <= ' ' || c == '"' || c == '=' || c == '\\' || c == 0x7f) return false;
  }
  return true;
}

// In double quotes; what would end the quotes is escaped, what would end the line is blanked.
void AppendQuoted(absl::string_view value, std::string& line) {
  line += '"';
  for (const char c : value) {
    if (c == '"' || c == '\\') {
      line += '\\';
      line += c;
    } else if (static_cast<unsigned char>(c) < ' ' || c == 0x7f) {
      line += ' ';
    } else {
      line += c;
    }
  }
  line += '"';
}

// A JSON string; bytes that are not UTF-8 are replaced.
std::string JsonString(absl::string_view text) {
  return nlohmann::json(std::string(text))
      .dump(-1, ' ', /*ensure_ascii=*/false, nlohmann::json::error_handler_t::replace);
}

std::string TextLine(absl::string_view time, LogLevel level, absl::string_view message,
                     const std::vector<LogField>& fields) {
  const char letter = level == LogLevel::kInfo ? 'I' : level == LogLevel::kWarning ? 'W' : 'E';
  std::string line = absl::StrCat(time, " ", std::string(1, letter), " ", message);
  for (const LogField& field : fields) {
    absl::StrAppend(&line, " ", field.key, "=");
    if (IsPlain(field.value)) {
      line += field.value;
    } else {
      AppendQuoted(field.value, line);
    }
  }
  line += '\n';
  return line;
}

std::string JsonLine(absl::string_view time, LogLevel level, absl::string_view message,
                     const std::vector<LogField>& fields) {
  const absl::string_view name = level == LogLevel::kInfo      ? "info"
                                 : level == LogLevel::kWarning ? "warning"
                                                               : "error";
  std::string line = absl::StrCat("{\"time\":", JsonString(time), ",\"level\":\"", name,
                                  "\",\"message\":", JsonString(message));
  for (const LogField& field : fields) {
    absl::StrAppend(&line, ",", JsonString(field.key), ":",
                    field.number ? field.value : JsonString(field.value));
  }
  line += "}\n";
  return line;
}

}  // namespace

LogField SecondsField(absl::string_view key, double seconds) {
  LogField field(key, absl::StrFormat("%.3f", seconds));
  field.number = std::isfinite(seconds);
  return field;
}

absl::StatusOr<LogFormat> ParseLogFormat(absl::string_view text) {
  if (text == "text") return LogFormat::kText;
  if (text == "json") return LogFormat::kJson;
  return absl::InvalidArgumentError(absl::StrCat("--log_format is ", text, "; expected text or json"));
}

void SetLogFormat(LogFormat format) { log_format = format; }

std::string FormatLogLine(LogFormat format, absl::string_view time, LogLevel level, absl::string_view message,
                          const std::vector<LogField>& fields) {
  return format == LogFormat::kJson ? JsonLine(time, level, message, fields)
                                    : TextLine(time, level, message, fields);
}

void Log(LogLevel level, absl::string_view message, const std::vector<LogField>& fields) {
  const std::string line =
      FormatLogLine(log_format, absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(), absl::UTCTimeZone()),
                    level, message, fields);
  // One write, so that lines of several processes on one terminal do not mix.
  size_t written = 0;
  while (written < line.size()) {
    const ssize_t n = write(STDERR_FILENO, line.data() + written, line.size() - written);
    if (n <= 0) return;
    written += static_cast<size_t>(n);
  }
}

}  // namespace lancet
