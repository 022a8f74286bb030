#include "tools/golden/golden_case.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <set>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/bf16.h"
#include "common/safetensors.h"
#include "common/status_macros.h"
#include "coordinator/request/image_decoder.h"

namespace lancet {
namespace {

// Goldens are small; anything larger was not meant to be one.
constexpr int64_t kMaxFileBytes = int64_t{64} << 20;

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  if (error) return absl::NotFoundError(absl::StrCat(path, ": ", error.message()));
  if (static_cast<int64_t>(size) > kMaxFileBytes) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", size, " bytes; at most ", kMaxFileBytes));
  }
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

absl::StatusOr<nlohmann::json> ReadJson(const std::string& path) {
  LANCET_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  nlohmann::json json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return absl::InvalidArgumentError(absl::StrCat(path, ": not JSON"));
  return json;
}

template <typename T>
void Widen(const TensorView& view, std::vector<double>& out) {
  const T* data = view.as<T>();
  for (int64_t i = 0; i < view.num_elements(); ++i) {
    if constexpr (std::is_same_v<T, bf16>) {
      out.push_back(ToFloat(data[i]));
    } else {
      out.push_back(static_cast<double>(data[i]));
    }
  }
}

}  // namespace

absl::StatusOr<GoldenFolder> GoldenFolder::Open(const std::string& folder) {
  GoldenFolder golden;
  golden.folder_ = folder;
  std::error_code error;
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    const std::filesystem::path& path = entry.path();
    if (entry.is_directory()) {
      names.insert(path.filename().string());
    } else if ((path.extension() == ".json" || path.extension() == ".safetensors") &&
               path.stem() != "errors") {
      names.insert(path.stem().string());
    }
  }
  if (error) return absl::NotFoundError(absl::StrCat("--golden ", folder, ": ", error.message()));
  if (names.empty()) return absl::NotFoundError(absl::StrCat("--golden ", folder, " holds no goldens"));
  golden.cases_.assign(names.begin(), names.end());
  golden.errors_ = nlohmann::json::object();
  if (golden.Has("errors.json")) {
    LANCET_ASSIGN_OR_RETURN(golden.errors_, ReadJson(golden.path("errors.json")));
  }
  return golden;
}

std::string GoldenFolder::path(absl::string_view file) const { return absl::StrCat(folder_, "/", file); }

bool GoldenFolder::Has(absl::string_view file) const { return std::filesystem::exists(path(file)); }

absl::StatusOr<nlohmann::json> GoldenFolder::Json(const std::string& case_name) const {
  return ReadJson(path(absl::StrCat(case_name, ".json")));
}

absl::StatusOr<std::unique_ptr<StateDict>> GoldenFolder::Tensors(const std::string& case_name) const {
  return SafetensorsFile::Open(path(absl::StrCat(case_name, ".safetensors")));
}

absl::StatusOr<RgbImage> GoldenFolder::Png(absl::string_view file) const {
  LANCET_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path(file)));
  return DecodeImage(bytes, DecodeLimits{});
}

std::optional<double> GoldenFolder::Bf16Error(const std::string& case_name, const std::string& quantity,
                                              const StateDict* dict) const {
  const auto entry = errors_.find(case_name);
  if (entry != errors_.end() && entry->contains(quantity)) {
    const auto& variants = (*entry)[quantity];
    if (variants.contains("bf16") && variants["bf16"].is_array() && !variants["bf16"].empty() &&
        variants["bf16"][0].is_number()) {
      return variants["bf16"][0].get<double>();
    }
  }
  if (dict == nullptr) return std::nullopt;
  const auto bf16_values = ReadDoubles(*dict, absl::StrCat("bf16.", quantity));
  const auto fp64_values = ReadDoubles(*dict, absl::StrCat("fp64.", quantity));
  if (!bf16_values.ok() || !fp64_values.ok()) return std::nullopt;
  return RelativeRms(*bf16_values, *fp64_values);
}

std::vector<double> ToDoubles(const TensorView& view) {
  std::vector<double> values;
  values.reserve(view.num_elements());
  switch (view.dtype) {
    case DType::kF64:
      Widen<double>(view, values);
      break;
    case DType::kF32:
      Widen<float>(view, values);
      break;
    case DType::kBf16:
      Widen<bf16>(view, values);
      break;
    case DType::kI64:
      Widen<int64_t>(view, values);
      break;
    case DType::kI32:
      Widen<int32_t>(view, values);
      break;
    case DType::kU8:
    case DType::kBool:
      Widen<uint8_t>(view, values);
      break;
    case DType::kI8:
      Widen<int8_t>(view, values);
      break;
    case DType::kI16:
      Widen<int16_t>(view, values);
      break;
    case DType::kF16:
      break;  // no golden is stored as F16
  }
  return values;
}

absl::StatusOr<std::vector<double>> ReadDoubles(const StateDict& dict, absl::string_view name) {
  LANCET_ASSIGN_OR_RETURN(const TensorView view, dict.Get(name));
  return ToDoubles(view);
}

double RelativeRms(const std::vector<double>& got, const std::vector<double>& expected) {
  if (got.size() != expected.size() || expected.empty()) return std::numeric_limits<double>::infinity();
  double difference = 0;
  double norm = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    difference += (got[i] - expected[i]) * (got[i] - expected[i]);
    norm += expected[i] * expected[i];
  }
  // NaN anywhere must fail, not compare as small.
  const double error = std::sqrt(difference / norm);
  return std::isfinite(error) ? error : std::numeric_limits<double>::infinity();
}

absl::StatusOr<std::vector<int32_t>> ExpandRuns(const nlohmann::json& runs) {
  std::vector<int32_t> values;
  for (const auto& run : runs) {
    if (!run.is_array() || run.size() != 2 || !run[0].is_number_integer() || !run[1].is_number_integer() ||
        run[1].get<int64_t>() < 0 || run[1].get<int64_t>() > (int64_t{1} << 24)) {
      return absl::InvalidArgumentError("a run-length coded list holds something other than [value, count]");
    }
    values.insert(values.end(), run[1].get<int64_t>(), run[0].get<int32_t>());
  }
  return values;
}

}  // namespace lancet
