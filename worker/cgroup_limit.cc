#include "worker/cgroup_limit.h"

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace lancet {
namespace {

// A list of groups has some 20 short lines; a file of a group one number or two.
constexpr std::streamsize kMaxBytes = 64 << 10;

std::string ReadSmallFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text(static_cast<size_t>(kMaxBytes), '\0');
  file.read(text.data(), kMaxBytes);
  text.resize(static_cast<size_t>(file.gcount()));
  return text;
}

// Whole processors, rounded down: threads that share a part of one would be stopped for the rest of each
// period, and the others would wait for them.
std::optional<int> Processors(absl::string_view quota_text, absl::string_view period_text) {
  int64_t quota = 0;
  int64_t period = 0;
  if (!absl::SimpleAtoi(quota_text, &quota) || !absl::SimpleAtoi(period_text, &period) || quota <= 0 ||
      period <= 0) {
    return std::nullopt;
  }
  return static_cast<int>(std::clamp<int64_t>(quota / period, 1, 1 << 20));
}

std::optional<int> QuotaOf(const std::string& folder, bool version2) {
  if (version2) {
    const std::string text = ReadSmallFile(folder + "/cpu.max");
    const std::vector<absl::string_view> parts =
        absl::StrSplit(absl::StripAsciiWhitespace(text), ' ', absl::SkipEmpty());
    return parts.size() == 2 ? Processors(parts[0], parts[1]) : std::nullopt;
  }
  return Processors(ReadSmallFile(folder + "/cpu.cfs_quota_us"),
                    ReadSmallFile(folder + "/cpu.cfs_period_us"));
}

}  // namespace

std::optional<int> CgroupCpus(const std::string& proc_cgroup, const std::string& mount) {
  std::optional<int> smallest;
  const std::string groups = ReadSmallFile(proc_cgroup);
  // Each line is number:controllers:path; version 2 has number 0 and names no controllers.
  for (const absl::string_view line : absl::StrSplit(groups, '\n')) {
    const std::vector<absl::string_view> fields = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (fields.size() != 3) continue;
    const bool version2 = fields[0] == "0" && fields[1].empty();
    const std::vector<absl::string_view> controllers = absl::StrSplit(fields[1], ',');
    const bool has_cpu = std::find(controllers.begin(), controllers.end(), "cpu") != controllers.end();
    if (!version2 && !has_cpu) continue;
    const std::string root = version2 ? mount : absl::StrCat(mount, "/", fields[1]);
    absl::string_view path = fields[2];
    while (true) {
      while (absl::EndsWith(path, "/")) path.remove_suffix(1);
      if (const std::optional<int> cpus = QuotaOf(absl::StrCat(root, path), version2)) {
        smallest = std::min(*cpus, smallest.value_or(*cpus));
      }
      if (path.empty()) break;
      const size_t slash = path.rfind('/');
      path = path.substr(0, slash == absl::string_view::npos ? 0 : slash);
    }
  }
  return smallest;
}

}  // namespace lancet
