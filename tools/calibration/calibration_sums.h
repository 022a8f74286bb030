// Statistics of all products of a trunk while they are collected or merged, and the files made of them.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/checkpoint.h"
#include "tools/calibration/calibration_file.h"
#include "tools/calibration/product_statistics.h"
#include "worker/loader/device_shapes.h"

namespace lancet {

class CalibrationSums {
 public:
  // Of a checkpoint, without rows. `xtx`: patterns (common/glob.h) over names of Linears; products of which
  // one matches also sum x x^T. InvalidArgument for a pattern that matches none.
  static absl::StatusOr<CalibrationSums> Create(const Checkpoint& checkpoint,
                                                const std::vector<std::string>& xtx);
  // Of a file that lancet-calibrate wrote.
  static absl::StatusOr<CalibrationSums> Create(const CalibrationFile& file);

  // Of the product `linear` of one expert of a layer.
  ProductStatistics& Of(int64_t layer, bool gen, FusedLinear linear);

  // Adds another run of the same checkpoint. InvalidArgument names the file and what differs: the checkpoint,
  // or what was collected. After an error this is to be thrown away.
  absl::Status Add(const CalibrationFile& file);

  // Writes calibration_file.h's format, under another name first. Unavailable if it cannot be written;
  // FailedPrecondition if no product saw a row.
  absl::Status Write(const std::string& path) const;

 private:
  struct Product {
    std::vector<std::string> linears;  // names of those that share the input; the first one names the product
    ProductStatistics statistics;
  };

  std::string fingerprint_;
  std::string trunk_fingerprint_;
  std::string trunk_;
  std::map<std::string, Product> products_;  // by the first Linear's name
};

// activation_factors.json (common/activation_factors.h) of a checkpoint's statistics: for every NVFP4 Linear,
// |x| at `percentile`, one of kCalibrationPercentiles, / 2688. 100, the largest |x|, clips nothing.
// InvalidArgument for another checkpoint's file; FailedPrecondition names a Linear that it lacks.
absl::StatusOr<std::string> ActivationFactorsJson(const Checkpoint& checkpoint, const CalibrationFile& file,
                                                  double percentile);

// Writes a file under another name and renames it, so that nobody reads half of it.
absl::Status WriteTextFile(const std::string& path, absl::string_view text);

}  // namespace lancet
