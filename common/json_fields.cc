#include "common/json_fields.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/json.h"
#include "common/quote.h"
#include "common/status_macros.h"

namespace lancet {
namespace {

using nlohmann::json;

constexpr JsonLimits kConfigLimits = {.max_bytes = size_t{4} << 20, .max_depth = 16};

std::string Print(const json& value) {
  return Quote(value.dump(-1, ' ', true, json::error_handler_t::replace), 60);
}

}  // namespace

absl::StatusOr<json> ParseConfigObject(const std::string& json_text, const std::string& source_name) {
  LANCET_ASSIGN_OR_RETURN(json value, ParseJson(json_text, source_name, kConfigLimits));
  if (!value.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(source_name, ": is not a JSON object"));
  }
  return value;
}

JsonFields::JsonFields(const json& object, std::string where) : object_(object), where_(std::move(where)) {}

const json* JsonFields::Find(const char* key) const {
  const auto it = object_.find(key);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

absl::Status JsonFields::Error(absl::string_view key, absl::string_view what) const {
  return absl::InvalidArgumentError(absl::StrCat(where_, ": ", key, " ", what));
}

absl::StatusOr<int64_t> JsonFields::Int(const char* key, int64_t min, int64_t max) const {
  const json* value = Find(key);
  if (value == nullptr) return Error(key, "is missing");
  return CheckInt(*value, key, min, max);
}

absl::StatusOr<int64_t> JsonFields::Int(const char* key, int64_t min, int64_t max, int64_t fallback) const {
  const json* value = Find(key);
  if (value == nullptr) return fallback;
  return CheckInt(*value, key, min, max);
}

absl::StatusOr<double> JsonFields::Number(const char* key, double min, double max, double fallback) const {
  const json* value = Find(key);
  if (value == nullptr) return fallback;
  return CheckNumber(*value, key, min, max);
}

absl::StatusOr<int64_t> JsonFields::CheckInt(const json& value, absl::string_view key, int64_t min,
                                             int64_t max) const {
  if (!value.is_number_integer()) return Error(key, absl::StrCat("is not an integer: ", Print(value)));
  const bool too_big = value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(max);
  const int64_t number = too_big ? max : value.get<int64_t>();
  if (too_big || number < min || number > max) {
    return Error(key, absl::StrCat("is ", Print(value), "; expected ", min, " to ", max));
  }
  return number;
}

absl::StatusOr<double> JsonFields::CheckNumber(const json& value, absl::string_view key, double min,
                                               double max) const {
  if (!value.is_number()) return Error(key, absl::StrCat("is not a number: ", Print(value)));
  const double number = value.get<double>();
  if (!(number >= min && number <= max)) {
    return Error(key, absl::StrCat("is ", Print(value), "; expected ", min, " to ", max));
  }
  return number;
}

}  // namespace lancet
