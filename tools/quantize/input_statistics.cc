#include "tools/quantize/input_statistics.h"

#include <algorithm>
#include <cmath>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/quote.h"
#include "common/status_macros.h"

namespace lancet {

absl::StatusOr<Calibration> Calibration::Open(const std::string& path) {
  Calibration calibration;
  LANCET_ASSIGN_OR_RETURN(calibration.file_, CalibrationFile::Open(path));
  if (calibration.file_->trunk() == "nvfp4") {
    return absl::InvalidArgumentError(
        absl::StrCat(path,
                     ": has statistics of a quantised checkpoint, whose inputs its own factors have "
                     "changed; calibrate with the source"));
  }
  LANCET_ASSIGN_OR_RETURN(calibration.tensors_, SafetensorsFile::Open(path));
  return calibration;
}

bool Calibration::Has(absl::string_view linear) const {
  const std::vector<std::string>& linears = file_->linears();
  return std::binary_search(linears.begin(), linears.end(), linear);
}

absl::StatusOr<InputStatistics> Calibration::Get(const std::string& base, int64_t in) const {
  LANCET_ASSIGN_OR_RETURN(const LinearStatistics linear, file_->Get(base));
  if (linear.in != in) {
    return absl::InvalidArgumentError(absl::StrCat(file_->path(), ": statistics of ", Quote(base), " are of ",
                                                   linear.in, " inputs; the checkpoint's Linear has ", in));
  }
  InputStatistics statistics;
  statistics.rows = linear.n_tokens;
  statistics.xtx = linear.xtx;
  const float rows = static_cast<float>(linear.n_tokens);
  for (const float sum : linear.sum_abs) statistics.mean_abs.push_back(sum / rows);
  for (int64_t c = 0; c < in; ++c) {
    const float mean = statistics.mean_abs[c];
    statistics.mean_square.push_back(linear.xtx.empty() ? mean * mean : linear.xtx[c * in + c] / rows);
    if (!std::isfinite(statistics.mean_square[c]) || statistics.mean_square[c] < 0) {
      return absl::InvalidArgumentError(absl::StrCat(file_->path(), ": mean square of input ", c, " of ",
                                                     Quote(base), " is ", statistics.mean_square[c]));
    }
  }
  return statistics;
}

absl::StatusOr<std::vector<float>> Calibration::Factors(const std::string& norm, int64_t size) const {
  const std::string name = absl::StrCat(norm, ".s");
  if (!tensors_->Contains(name)) return std::vector<float>();
  LANCET_ASSIGN_OR_RETURN(const TensorView view, GetChecked(*tensors_, name, DType::kF32, {size}));
  std::vector<float> factors(view.as<float>(), view.as<float>() + size);
  for (const float factor : factors) {
    if (!(factor > 0) || !std::isfinite(factor)) {
      return absl::InvalidArgumentError(absl::StrCat(file_->path(), ": tensor ", Quote(name), " holds ",
                                                     factor, "; factors are positive numbers"));
    }
  }
  return factors;
}

}  // namespace lancet
