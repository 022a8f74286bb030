#include "coordinator/access/token_file.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/status_macros.h"

namespace lancet {
namespace {

constexpr size_t kMaxTokens = 1000;
constexpr size_t kMaxNameBytes = 64;
constexpr int32_t kMaxConcurrent = 100000;

bool IsGoodName(absl::string_view name) {
  return !name.empty() && name.size() <= kMaxNameBytes && std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-' || c == '.';
  });
}

absl::Status ParseLimit(absl::string_view word, TokenEntry& entry) {
  const std::pair<absl::string_view, absl::string_view> parts = absl::StrSplit(word, absl::MaxSplits('=', 1));
  const auto& [key, value] = parts;
  TokenLimits& limits = entry.limits;
  if (word == "admin") {
    entry.admin = true;
  } else if (key == "max_concurrent") {
    if (!absl::SimpleAtoi(value, &limits.max_concurrent) || limits.max_concurrent < 1 ||
        limits.max_concurrent > kMaxConcurrent) {
      return absl::InvalidArgumentError(absl::StrCat(word, " is not within 1 to ", kMaxConcurrent));
    }
  } else if (key == "pixel_steps_per_minute") {
    if (!absl::SimpleAtoi(value, &limits.pixel_steps_per_minute) || limits.pixel_steps_per_minute < 1) {
      return absl::InvalidArgumentError(absl::StrCat(word, " is not a whole number from 1"));
    }
  } else if (key == "queue_share") {
    if (!absl::SimpleAtod(value, &limits.queue_share) ||
        !(limits.queue_share > 0 && limits.queue_share <= 1)) {
      return absl::InvalidArgumentError(absl::StrCat(word, " is not above 0 and at most 1"));
    }
  } else {
    return absl::InvalidArgumentError(absl::StrCat(
        "'", word, "'; expected admin, max_concurrent=, pixel_steps_per_minute= or queue_share="));
  }
  return absl::OkStatus();
}

absl::StatusOr<TokenEntry> ParseLine(absl::string_view line) {
  const std::vector<absl::string_view> words =
      absl::StrSplit(line, absl::ByAnyChar(" \t\r"), absl::SkipEmpty());
  TokenEntry entry;
  if (!IsGoodName(words[0])) {
    return absl::InvalidArgumentError(
        absl::StrCat("the name must be 1 to ", kMaxNameBytes, " letters, digits, '.', '_' or '-'"));
  }
  entry.name = std::string(words[0]);
  // What stands here may be a token by mistake, so it is not repeated.
  absl::string_view hash = words.size() > 1 ? words[1] : "";
  if (!absl::ConsumePrefix(&hash, "sha256:")) {
    return absl::InvalidArgumentError("after the name comes sha256: and 64 hex digits");
  }
  const absl::StatusOr<Sha256Digest> digest = ParseDigest(hash);
  if (!digest.ok()) return absl::InvalidArgumentError(absl::StrCat("sha256: ", digest.status().message()));
  entry.hash = *digest;
  for (size_t i = 2; i < words.size(); ++i) LANCET_RETURN_IF_ERROR(ParseLimit(words[i], entry));
  return entry;
}

}  // namespace

absl::StatusOr<std::vector<TokenEntry>> ParseTokenFile(absl::string_view text) {
  std::vector<TokenEntry> entries;
  std::set<std::string> names;
  std::set<Sha256Digest> hashes;
  int number = 0;
  for (const absl::string_view raw : absl::StrSplit(text, '\n')) {
    ++number;
    const absl::string_view line = absl::StripAsciiWhitespace(raw);
    if (line.empty() || absl::StartsWith(line, "#")) continue;
    absl::StatusOr<TokenEntry> entry = ParseLine(line);
    if (entry.ok() && !names.insert(entry->name).second) {
      entry = absl::InvalidArgumentError(absl::StrCat("the name ", entry->name, " was there before"));
    }
    if (entry.ok() && !hashes.insert(entry->hash).second) {
      entry = absl::InvalidArgumentError("the same token was there before");
    }
    if (entry.ok() && entries.size() == kMaxTokens) {
      entry = absl::InvalidArgumentError(absl::StrCat("more than ", kMaxTokens, " tokens"));
    }
    if (!entry.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("line ", number, ": ", entry.status().message()));
    }
    entries.push_back(*std::move(entry));
  }
  return entries;
}

}  // namespace lancet
