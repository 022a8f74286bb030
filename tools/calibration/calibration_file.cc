#include "tools/calibration/calibration_file.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/quote.h"
#include "common/status_macros.h"

namespace lancet {
namespace {

constexpr absl::string_view kFormat = "lancet-calibration";
constexpr absl::string_view kVersion = "1";
constexpr absl::string_view kSumSuffix = ".sum_abs";
// The largest number that bf16 holds.
constexpr int32_t kLargestFinite = 0x7f7f;

absl::Status Refuse(const SafetensorsFile& file, absl::string_view tensor, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(file.path(), ": tensor ", Quote(tensor), " ", what));
}

// A tensor of this type and shape; an empty span if the file has none of that name.
template <typename T>
absl::StatusOr<absl::Span<const T>> Find(const SafetensorsFile& file, const std::string& name,
                                         const Shape& shape) {
  if (!file.Contains(name)) return absl::Span<const T>();
  LANCET_ASSIGN_OR_RETURN(const TensorView view, GetChecked(file, name, DTypeOf<T>::value, shape));
  return absl::MakeConstSpan(view.as<T>(), static_cast<size_t>(view.num_elements()));
}

bool AllFinite(absl::Span<const float> values) {
  return std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v) && v >= 0; });
}

}  // namespace

std::string ProductName(absl::string_view linear) {
  const size_t dot = linear.rfind('.');
  const size_t begin = dot == absl::string_view::npos ? 0 : dot + 1;
  absl::string_view last = linear.substr(begin);
  const absl::string_view before = linear.substr(0, begin);
  if (absl::ConsumePrefix(&last, "k_proj") || absl::ConsumePrefix(&last, "v_proj")) {
    return absl::StrCat(before, "q_proj", last);
  }
  if (absl::ConsumePrefix(&last, "up_proj")) return absl::StrCat(before, "gate_proj", last);
  return std::string(linear);
}

absl::StatusOr<std::unique_ptr<CalibrationFile>> CalibrationFile::Open(const std::string& path) {
  LANCET_ASSIGN_OR_RETURN(std::unique_ptr<SafetensorsFile> file, SafetensorsFile::Open(path));
  return Create(std::move(file));
}

absl::StatusOr<std::unique_ptr<CalibrationFile>> CalibrationFile::Create(
    std::unique_ptr<SafetensorsFile> file) {
  auto calibration = std::unique_ptr<CalibrationFile>(new CalibrationFile(std::move(file)));
  LANCET_RETURN_IF_ERROR(calibration->ReadMetadata());
  for (const std::string& name : calibration->file_->names()) {
    absl::string_view linear = name;
    if (!absl::ConsumeSuffix(&linear, kSumSuffix)) continue;
    LANCET_RETURN_IF_ERROR(calibration->CheckLinear(std::string(linear)));
    calibration->linears_.emplace_back(linear);
  }
  if (calibration->linears_.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(calibration->path(), ": has no tensor *.sum_abs; not a file of calibration statistics"));
  }
  std::sort(calibration->linears_.begin(), calibration->linears_.end());
  return calibration;
}

absl::Status CalibrationFile::ReadMetadata() {
  const auto& metadata = file_->metadata();
  if (metadata.empty()) return absl::OkStatus();
  const auto value = [&](const char* key) {
    const auto found = metadata.find(key);
    return found == metadata.end() ? std::string() : found->second;
  };
  const auto expect = [&](const char* key, bool good, absl::string_view expected) -> absl::Status {
    if (good) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat(path(), ": __metadata__ ", key, " is ", Quote(value(key), 40), "; expected ", expected));
  };
  LANCET_RETURN_IF_ERROR(expect("format", value("format") == kFormat, kFormat));
  LANCET_RETURN_IF_ERROR(expect("version", value("version") == kVersion, kVersion));
  fingerprint_ = value("fingerprint");
  trunk_fingerprint_ = value("trunk_fingerprint");
  trunk_ = value("trunk");
  for (const char* key : {"fingerprint", "trunk_fingerprint"}) {
    const std::string text = value(key);
    const bool hex = text.size() == 32 && std::all_of(text.begin(), text.end(), absl::ascii_isxdigit);
    LANCET_RETURN_IF_ERROR(expect(key, hex, "32 hex digits"));
  }
  return expect("trunk", trunk_ == "source" || trunk_ == "nvfp4", "source or nvfp4");
}

absl::Status CalibrationFile::CheckLinear(const std::string& linear) const {
  LANCET_ASSIGN_OR_RETURN(const TensorView sums, file_->Get(absl::StrCat(linear, kSumSuffix)));
  if (sums.dtype != DType::kF32 || sums.shape.size() != 1 || sums.shape[0] == 0) {
    return Refuse(
        *file_, absl::StrCat(linear, kSumSuffix),
        absl::StrCat("is ", DTypeName(sums.dtype), " ", ShapeString(sums.shape), "; expected F32 [in]"));
  }
  LANCET_ASSIGN_OR_RETURN(const LinearStatistics statistics, Get(linear));
  if (statistics.n_tokens <= 0) {
    return Refuse(*file_, absl::StrCat(linear, ".n_tokens"), "is missing or not above 0");
  }
  for (const auto& [suffix, values] :
       {std::pair(".sum_abs", statistics.sum_abs), std::pair(".max_abs", statistics.max_abs),
        std::pair(".percentiles", statistics.percentiles)}) {
    if (!AllFinite(values)) {
      return Refuse(*file_, absl::StrCat(linear, suffix), "has a value that is negative or not finite");
    }
  }
  const auto& bits = statistics.abs_bits;
  for (size_t i = 0; i < bits.size(); ++i) {
    if (bits[i] < 0 || bits[i] > kLargestFinite || (i > 0 && bits[i] <= bits[i - 1])) {
      return Refuse(
          *file_, absl::StrCat(ProductName(linear), ".abs_bits"),
          absl::StrCat("has ", bits[i], " at ", i, "; expected increasing values of 0 to ", kLargestFinite));
    }
    if (statistics.abs_counts[i] <= 0 || statistics.abs_counts[i] > (int64_t{1} << 53)) {
      return Refuse(*file_, absl::StrCat(ProductName(linear), ".abs_counts"),
                    absl::StrCat("has ", statistics.abs_counts[i], " at ", i, "; expected 1 to 2^53"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<LinearStatistics> CalibrationFile::Get(absl::string_view linear) const {
  const SafetensorsFile& file = *file_;
  const std::string name(linear);
  if (!file.Contains(absl::StrCat(name, kSumSuffix))) {
    return absl::NotFoundError(absl::StrCat(path(), ": has no statistics of ", Quote(name)));
  }
  LANCET_ASSIGN_OR_RETURN(const TensorView sums, file.Get(absl::StrCat(name, kSumSuffix)));
  LinearStatistics statistics;
  statistics.in = sums.shape[0];
  statistics.sum_abs = absl::MakeConstSpan(sums.as<float>(), static_cast<size_t>(statistics.in));
  LANCET_ASSIGN_OR_RETURN(const absl::Span<const int64_t> tokens,
                          Find<int64_t>(file, absl::StrCat(name, ".n_tokens"), {}));
  statistics.n_tokens = tokens.empty() ? 0 : tokens[0];
  LANCET_ASSIGN_OR_RETURN(statistics.max_abs,
                          Find<float>(file, absl::StrCat(name, ".max_abs"), {statistics.in}));
  LANCET_ASSIGN_OR_RETURN(statistics.percentiles,
                          Find<float>(file, absl::StrCat(name, ".percentiles"),
                                      {static_cast<int64_t>(kCalibrationPercentiles.size())}));
  const std::string product = ProductName(name);
  LANCET_ASSIGN_OR_RETURN(statistics.xtx,
                          Find<float>(file, absl::StrCat(product, ".xtx"), {statistics.in, statistics.in}));
  const std::string bits = absl::StrCat(product, ".abs_bits");
  if (!file.Contains(bits)) return statistics;
  LANCET_ASSIGN_OR_RETURN(const TensorView bits_view, file.Get(bits));
  LANCET_ASSIGN_OR_RETURN(statistics.abs_bits, Find<int32_t>(file, bits, {bits_view.num_elements()}));
  LANCET_ASSIGN_OR_RETURN(statistics.abs_counts, Find<int64_t>(file, absl::StrCat(product, ".abs_counts"),
                                                               {bits_view.num_elements()}));
  if (statistics.abs_counts.size() != statistics.abs_bits.size()) {
    return Refuse(file, absl::StrCat(product, ".abs_counts"), "is missing");
  }
  return statistics;
}

}  // namespace lancet
