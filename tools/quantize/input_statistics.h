// What a calibration says about the inputs of a product, in the form that searches for scales use.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "tools/calibration/calibration_file.h"

namespace lancet {

struct InputStatistics {
  std::vector<float> mean_abs;     // [in]: sum |x| / rows, in f32
  std::vector<float> mean_square;  // [in]: of x^2, from XᵀX where there is one, otherwise mean_abs squared
  int64_t rows = 0;
  absl::Span<const float> xtx;  // [in, in], the sum over rows; empty if it was not asked for
};

class Calibration {
 public:
  // Statistics of a source checkpoint. InvalidArgument also for those of a quantised one: what enters its
  // Linears is divided by its factors already.
  static absl::StatusOr<Calibration> Open(const std::string& path);

  const CalibrationFile& file() const { return *file_; }
  bool Has(absl::string_view linear) const;
  // Of Linear `base` with `in` inputs, which Has. InvalidArgument if the sizes differ. The view lives as long
  // as this.
  absl::StatusOr<InputStatistics> Get(const std::string& base, int64_t in) const;
  // The factors that the file gives for a norm ("NORM.s"), as the published tools write them; empty if none.
  absl::StatusOr<std::vector<float>> Factors(const std::string& norm, int64_t size) const;

 private:
  std::unique_ptr<CalibrationFile> file_;
  std::unique_ptr<SafetensorsFile> tensors_;  // the same file, for what CalibrationFile does not read
};

}  // namespace lancet
