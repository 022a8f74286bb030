// Statistics of what enters the Linears of a trunk, as lancet-calibrate writes them and as quantisers and the
// factors of NVFP4 activations need them: one safetensors file.
//
//   __metadata__   format "lancet-calibration", version "1"
//                  fingerprint        of the checkpoint that ran (common/fingerprint.h)
//                  trunk_fingerprint  of its trunk alone, so that a quantiser that reads nothing else can
//                  tell trunk              "source", or "nvfp4" if a Linear of it is quantised: what enters
//                  its
//                                     Linears is divided by AWQ factors already
// Per Linear N, its name in the checkpoint without ".weight" or ".qweight":
//   N.sum_abs      F32 [in]  sum over rows of |x|
//   N.n_tokens     I64 []    rows
//   N.max_abs      F32 [in]
//   N.percentiles  F32 [4]   |x| of all rows and channels at 99, 99.9, 99.99 and 100 % (nearest rank)
// Once per product, under the first of the Linears that share an input (q_proj for q, k and v; gate_proj for
// gate and up; with their experts' suffixes):
//   N.abs_bits     I32 [k], N.abs_counts  I64 [k]   how often each |x| occurred, by its bits as bf16,
//   increasing: x is
//                  bf16, so that percentiles are exact, and stay so when runs are merged
//   N.xtx          F32 [in, in]  sum over rows of x x^T, where it was asked for
// A Linear that saw no row is absent. Files with sum_abs and n_tokens alone and without metadata, which other
// tools write, are read, too; other tensors are ignored.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/safetensors.h"

namespace lancet {

inline constexpr std::array<double, 4> kCalibrationPercentiles = {99.0, 99.9, 99.99, 100.0};

// Of one Linear. Views into the file; those that the file has not are empty.
struct LinearStatistics {
  int64_t in = 0;
  int64_t n_tokens = 0;                  // > 0
  absl::Span<const float> sum_abs;       // [in]
  absl::Span<const float> max_abs;       // [in]
  absl::Span<const float> percentiles;   // [4]
  absl::Span<const float> xtx;           // [in, in]
  absl::Span<const int32_t> abs_bits;    // [k]
  absl::Span<const int64_t> abs_counts;  // [k]
};

// The Linear under whose name a product's tensors are: "...q_proj_moe_gen" for "...v_proj_moe_gen",
// "...gate_proj" for
// "...up_proj", others for themselves.
std::string ProductName(absl::string_view linear);

class CalibrationFile {
 public:
  // Maps and checks all but the values of xtx: shapes and element types that agree, counts above 0, sums and
  // maxima finite and not negative, bits of finite numbers. InvalidArgument names the file and the tensor.
  static absl::StatusOr<std::unique_ptr<CalibrationFile>> Open(const std::string& path);
  static absl::StatusOr<std::unique_ptr<CalibrationFile>> Create(std::unique_ptr<SafetensorsFile> file);

  const std::string& path() const { return file_->path(); }
  // Empty in files without metadata.
  const std::string& fingerprint() const { return fingerprint_; }
  const std::string& trunk_fingerprint() const { return trunk_fingerprint_; }
  const std::string& trunk() const { return trunk_; }
  // Names of the Linears that have statistics, sorted.
  const std::vector<std::string>& linears() const { return linears_; }
  // NotFound if there are none. Views live as long as the file.
  absl::StatusOr<LinearStatistics> Get(absl::string_view linear) const;

 private:
  explicit CalibrationFile(std::unique_ptr<SafetensorsFile> file) : file_(std::move(file)) {}
  absl::Status ReadMetadata();
  absl::Status CheckLinear(const std::string& linear) const;

  std::unique_ptr<SafetensorsFile> file_;
  std::string fingerprint_;
  std::string trunk_fingerprint_;
  std::string trunk_;
  std::vector<std::string> linears_;
};

}  // namespace lancet
