// What quantisation cost: every Linear of a quantised trunk beside the unquantised one.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/model_config.h"
#include "common/state_dict.h"
#include "common/thread_pool.h"
#include "tools/quantize/input_statistics.h"

namespace lancet {

struct LinearComparison {
  std::string name;
  bool is_bf16 = false;  // not quantised
  // ||W' - W|| / ||W||, both as the model computes with them: factors per channel that the norm in front gave
  // up are taken out of W' again, by what became of the norm.
  double weight_error = 0;
  // The same of the outputs for inputs as calibration saw them: E ||(W' - W) x||² / E ||W x||², its root.
  // With XᵀX exact for those inputs, otherwise as if their channels were independent.
  std::optional<double> output_error;
  bool is_exact = false;  // output_error comes from XᵀX
};

// In the order of the layers. `calibration`: of the source, or null. InvalidArgument or NotFound names the
// tensor that does not fit.
absl::StatusOr<std::vector<LinearComparison>> CompareWithSource(const StateDict& trunk,
                                                                const ModelConfig& config,
                                                                const StateDict& source,
                                                                const Calibration* calibration,
                                                                ThreadPool& pool);

// A line per Linear, means by kind, and the worst; or JSON. Ends with a newline.
std::string ComparisonReport(const std::vector<LinearComparison>& linears, bool json);

}  // namespace lancet
