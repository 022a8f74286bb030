#include "common/activation_factors.h"

#include <cmath>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/json.h"
#include "common/quote.h"
#include "common/status_macros.h"

namespace lancet {
namespace {

constexpr int64_t kVersion = 1;
constexpr JsonLimits kLimits = {.max_bytes = kMaxActivationFactorsBytes, .max_depth = 4};

absl::Status Refuse(absl::string_view source, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(source, ": ", what));
}

}  // namespace

absl::StatusOr<ActivationFactors> ParseActivationFactors(absl::string_view json_text,
                                                         absl::string_view source,
                                                         absl::string_view fingerprint,
                                                         const std::vector<std::string>& linears) {
  LANCET_ASSIGN_OR_RETURN(const nlohmann::json file, ParseJson(json_text, source, kLimits));
  if (!file.is_object()) return Refuse(source, "is not a JSON object");
  for (const char* key : {"version", "fingerprint", "factors"}) {
    if (!file.contains(key)) return Refuse(source, absl::StrCat(key, " is missing"));
  }
  for (const auto& [key, value] : file.items()) {
    if (key != "version" && key != "fingerprint" && key != "factors") {
      return Refuse(source, absl::StrCat("unknown key ", Quote(key)));
    }
  }
  const nlohmann::json& version = file["version"];
  if (!version.is_number_integer() || version != kVersion) {
    return Refuse(source, absl::StrCat("version is not ", kVersion));
  }
  const nlohmann::json& made_for = file["fingerprint"];
  if (!made_for.is_string()) return Refuse(source, "fingerprint is not a string");
  if (const std::string text = made_for.get<std::string>(); text != fingerprint) {
    return Refuse(source, absl::StrCat("fingerprint is ", Quote(text, 40), "; the checkpoint's is ",
                                       fingerprint, ": the factors are those of other weights"));
  }
  const nlohmann::json& factors = file["factors"];
  if (!factors.is_object()) return Refuse(source, "factors is not an object");
  ActivationFactors result;
  for (const std::string& name : linears) {
    const auto found = factors.find(name);
    if (found == factors.end()) return Refuse(source, absl::StrCat("factors: ", name, " is missing"));
    if (!found->is_number()) return Refuse(source, absl::StrCat("factors: ", name, " is not a number"));
    const double value = found->get<double>();
    // Written so that NaN fails.
    if (!(value >= std::numeric_limits<float>::min() && value <= std::numeric_limits<float>::max())) {
      return Refuse(source, absl::StrCat("factors: ", name, " is ", value,
                                         "; expected a positive number that f32 holds"));
    }
    result.emplace(name, static_cast<float>(value));
  }
  if (factors.size() != result.size()) {
    for (const auto& [name, value] : factors.items()) {
      if (!result.contains(name)) {
        return Refuse(source, absl::StrCat("factors: ", Quote(name), " is no Linear of the checkpoint"));
      }
    }
  }
  return result;
}

}  // namespace lancet
