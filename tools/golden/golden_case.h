// A folder of goldens: inputs and expected results that an independent oracle computed, one file or pair of
// files a case.
//   <case>.safetensors  tensors "<variant>.<quantity>", and inputs without a variant
//   <case>.json         an end-to-end case (it has a "task"), or a list of exact results
//   errors.json         per case and quantity, the distance of each variant to fp64: [relative RMS, largest
//   difference]
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/rgb_image.h"
#include "common/state_dict.h"
#include "nlohmann/json.hpp"

namespace lancet {

class GoldenFolder {
 public:
  static absl::StatusOr<GoldenFolder> Open(const std::string& folder);

  // Names of all cases, sorted: stems of *.json and *.safetensors without errors.json, and sub-folders.
  const std::vector<std::string>& cases() const { return cases_; }
  std::string path(absl::string_view file) const;
  bool Has(absl::string_view file) const;

  absl::StatusOr<nlohmann::json> Json(const std::string& case_name) const;
  absl::StatusOr<std::unique_ptr<StateDict>> Tensors(const std::string& case_name) const;
  absl::StatusOr<RgbImage> Png(absl::string_view file) const;
  // Relative RMS of the reference's own bf16 arithmetic: from errors.json, else from the bf16 and fp64
  // tensors of `dict`.
  std::optional<double> Bf16Error(const std::string& case_name, const std::string& quantity,
                                  const StateDict* dict) const;

 private:
  std::string folder_;
  std::vector<std::string> cases_;
  nlohmann::json errors_;
};

// All values of a tensor as double, whatever its type.
absl::StatusOr<std::vector<double>> ReadDoubles(const StateDict& dict, absl::string_view name);
std::vector<double> ToDoubles(const TensorView& view);

// ||got - expected|| / ||expected||.
double RelativeRms(const std::vector<double>& got, const std::vector<double>& expected);

// Expands [[value, count], ...].
absl::StatusOr<std::vector<int32_t>> ExpandRuns(const nlohmann::json& runs);

}  // namespace lancet
