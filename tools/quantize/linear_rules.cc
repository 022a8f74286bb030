#include "tools/quantize/linear_rules.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/glob.h"
#include "common/quote.h"

namespace lancet {
namespace {

constexpr size_t kMaxRules = 64;
constexpr size_t kMaxPatternBytes = 256;

}  // namespace

absl::StatusOr<absl::flat_hash_set<std::string>> LinearsInBf16(absl::string_view rules,
                                                               const std::vector<TrunkLinear>& linears) {
  const auto error = [](const auto&... what) {
    return absl::InvalidArgumentError(absl::StrCat("--linears: ", what...));
  };
  absl::flat_hash_set<std::string> kept;
  const std::vector<absl::string_view> parts = absl::StrSplit(rules, ',', absl::SkipEmpty());
  if (parts.size() > kMaxRules)
    return error("has ", parts.size(), " rules; at most ", kMaxRules, " are taken");
  for (const absl::string_view rule : parts) {
    const size_t equals = rule.rfind('=');
    const absl::string_view pattern = rule.substr(0, equals);
    const absl::string_view format =
        equals == absl::string_view::npos ? absl::string_view() : rule.substr(equals + 1);
    if (format != "bf16" && format != "nvfp4") {
      return error("rule ", Quote(rule), "; expected PATTERN=bf16 or PATTERN=nvfp4");
    }
    if (pattern.size() > kMaxPatternBytes) {
      return error("a pattern of ", pattern.size(), " bytes; at most ", kMaxPatternBytes, " are taken");
    }
    bool found = false;
    for (const TrunkLinear& linear : linears) {
      if (!GlobMatches(pattern, linear.base)) continue;
      found = true;
      if (format == "bf16") {
        kept.insert(linear.base);
      } else {
        kept.erase(linear.base);
      }
    }
    if (!found) {
      return error("pattern ", Quote(pattern), " matches no Linear; names are such as ",
                   linears.front().base);
    }
  }
  return kept;
}

}  // namespace lancet
