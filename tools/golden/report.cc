#include "tools/golden/report.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nlohmann/json.hpp"

namespace lancet {
namespace {

constexpr double kFailed = std::numeric_limits<double>::infinity();

}  // namespace

void GoldenReport::AddRms(absl::string_view case_name, absl::string_view quantity, double error,
                          double yardstick, absl::string_view note) {
  const double ratio = yardstick > 0 ? error / (tolerance_ * yardstick) : kFailed;
  rows_.push_back(
      {std::string(case_name), std::string(quantity), error, yardstick, ratio, "rms", std::string(note)});
}

void GoldenReport::AddExact(absl::string_view case_name, absl::string_view quantity, int64_t mismatches,
                            int64_t count, int64_t allowed, absl::string_view note) {
  const double ratio =
      mismatches <= allowed
          ? (allowed > 0 ? static_cast<double>(mismatches) / static_cast<double>(allowed) : 0)
      : allowed > 0 ? static_cast<double>(mismatches) / static_cast<double>(allowed)
                    : kFailed;
  rows_.push_back({std::string(case_name), std::string(quantity), static_cast<double>(mismatches),
                   static_cast<double>(allowed), ratio, "exact",
                   absl::StrCat("of ", count, note.empty() ? "" : "; ", note)});
}

void GoldenReport::AddLimit(absl::string_view case_name, absl::string_view quantity, double error,
                            double limit, absl::string_view note) {
  rows_.push_back({std::string(case_name), std::string(quantity), error, limit, error / limit, "limit",
                   std::string(note)});
}

void GoldenReport::AddSkipped(absl::string_view case_name, absl::string_view why) {
  rows_.push_back({std::string(case_name), "", 0, 0, 0, "skipped", std::string(why)});
}

void GoldenReport::AddFailure(absl::string_view case_name, absl::string_view why) {
  rows_.push_back({std::string(case_name), "", 0, 0, kFailed, "failed", std::string(why)});
}

bool GoldenReport::passed() const {
  // Written so that a NaN fails.
  return std::all_of(rows_.begin(), rows_.end(), [](const GoldenRow& row) { return row.ratio <= 1.0; });
}

std::string GoldenReport::Table() const {
  std::string table = absl::StrFormat("%-22s %-18s %-7s %10s %10s %7s  %s\n", "case", "quantity", "kind",
                                      "our error", "yardstick", "ratio", "");
  int failed = 0;
  int skipped = 0;
  for (const GoldenRow& row : rows_) {
    if (row.kind == "skipped") {
      ++skipped;
      absl::StrAppendFormat(&table, "%-22s %-18s %-7s %10s %10s %7s  %s\n", row.case_name, "", "skipped", "",
                            "", "", row.note);
      continue;
    }
    const bool ok = row.ratio <= 1.0;
    failed += ok ? 0 : 1;
    absl::StrAppendFormat(&table, "%-22s %-18s %-7s %10.3g %10.3g %7.3f  %s%s\n", row.case_name, row.quantity,
                          row.kind, row.error, row.yardstick, row.ratio, ok ? "" : "FAILED ", row.note);
  }
  absl::StrAppendFormat(&table, "%d rows compared, %d above 1, %d cases skipped\n",
                        static_cast<int>(rows_.size()) - skipped, failed, skipped);
  return table;
}

std::string GoldenReport::Json() const {
  nlohmann::json rows = nlohmann::json::array();
  for (const GoldenRow& row : rows_) {
    nlohmann::json item = {{"case", row.case_name}, {"quantity", row.quantity},   {"kind", row.kind},
                           {"error", row.error},    {"yardstick", row.yardstick}, {"note", row.note}};
    // JSON has no infinity.
    if (row.ratio == kFailed) {
      item["ratio"] = nullptr;
    } else {
      item["ratio"] = row.ratio;
    }
    rows.push_back(std::move(item));
  }
  return nlohmann::json({{"passed", passed()}, {"tolerance_factor", tolerance_}, {"rows", rows}}).dump(1);
}

}  // namespace lancet
