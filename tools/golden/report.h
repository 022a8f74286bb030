// What lancet-golden found: one row a compared quantity, as a table for people and as JSON for programs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace lancet {

// How far a run in bf16 may be from fp64, in units of the distance of the reference's own bf16 run. Correct
// runs land at 0.98 to 1.06; several real mistakes stay below 3. Arithmetic with smaller formats is further
// off.
inline constexpr double kToleranceFactor = 1.5;

struct GoldenRow {
  std::string case_name;
  std::string quantity;
  double error = 0;      // ours; what it counts depends on `kind`
  double yardstick = 0;  // the reference's own
  double ratio = 0;      // error / limit; above 1 fails
  std::string kind;      // "rms": relative RMS against fp64; "exact": entries that differ; "skipped"
  std::string note;
};

class GoldenReport {
 public:
  explicit GoldenReport(double tolerance = kToleranceFactor) : tolerance_(tolerance) {}

  // ratio = error / (tolerance * yardstick).
  void AddRms(absl::string_view case_name, absl::string_view quantity, double error, double yardstick,
              absl::string_view note = "");
  // `mismatches` of `count` entries differ, `allowed` may.
  void AddExact(absl::string_view case_name, absl::string_view quantity, int64_t mismatches, int64_t count,
                int64_t allowed = 0, absl::string_view note = "");
  // An error against a limit that is not the reference's.
  void AddLimit(absl::string_view case_name, absl::string_view quantity, double error, double limit,
                absl::string_view note = "");
  void AddSkipped(absl::string_view case_name, absl::string_view why);
  void AddFailure(absl::string_view case_name, absl::string_view why);

  bool passed() const;
  const std::vector<GoldenRow>& rows() const { return rows_; }
  std::string Table() const;
  std::string Json() const;

 private:
  const double tolerance_;
  std::vector<GoldenRow> rows_;
};

}  // namespace lancet
