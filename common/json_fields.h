// Fields of a configuration file's JSON object, each checked against its bounds. Messages name source and
// key.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lancet {

// Parses a configuration file (a few kB; at most 4 MiB and 16 levels) whose outermost value is an object.
absl::StatusOr<nlohmann::json> ParseConfigObject(const std::string& json_text,
                                                 const std::string& source_name);

// Reads fields of one object, which outlives the reader.
class JsonFields {
 public:
  // `where` begins messages: "config.json" or "config.json: rope_scaling".
  JsonFields(const nlohmann::json& object, std::string where);

  const std::string& where() const { return where_; }
  // Null when absent; a JSON null counts as absent.
  const nlohmann::json* Find(const char* key) const;

  // "<where>: <key> <what>".
  absl::Status Error(absl::string_view key, absl::string_view what) const;

  // A field between min and max; absent fields are errors unless there is a fallback.
  absl::StatusOr<int64_t> Int(const char* key, int64_t min, int64_t max) const;
  absl::StatusOr<int64_t> Int(const char* key, int64_t min, int64_t max, int64_t fallback) const;
  absl::StatusOr<double> Number(const char* key, double min, double max, double fallback) const;

  // The same for a value that is at hand; `key` is for the message.
  absl::StatusOr<int64_t> CheckInt(const nlohmann::json& value, absl::string_view key, int64_t min,
                                   int64_t max) const;
  absl::StatusOr<double> CheckNumber(const nlohmann::json& value, absl::string_view key, double min,
                                     double max) const;

 private:
  const nlohmann::json& object_;
  const std::string where_;
};

}  // namespace lancet
