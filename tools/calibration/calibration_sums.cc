#include "tools/calibration/calibration_sums.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/fingerprint.h"
#include "common/glob.h"
#include "common/quote.h"
#include "common/status_macros.h"
#include "common/trunk_layout.h"

namespace lancet {
namespace {

namespace fs = std::filesystem;

constexpr double kLargestCodeTimesScale = 6.0 * 448.0;

// A tensor to be written: `data` writes exactly `bytes`.
struct Output {
  std::string name;
  const char* dtype;
  std::vector<int64_t> shape;
  int64_t bytes = 0;
  std::function<void(std::ostream&)> data;
};

template <typename T>
void WriteValues(std::ostream& out, const std::vector<T>& values) {
  out.write(reinterpret_cast<const char*>(values.data()),
            static_cast<std::streamsize>(values.size() * sizeof(T)));
}

template <typename T>
Output OutputOf(std::string name, const char* dtype, std::vector<int64_t> shape, std::vector<T> values) {
  Output output{std::move(name), dtype, std::move(shape), static_cast<int64_t>(values.size() * sizeof(T)),
                nullptr};
  output.data = [values = std::move(values)](std::ostream& out) { WriteValues(out, values); };
  return output;
}

// Writes to a name of its own beside `path`, then renames.
absl::Status WriteThrough(const std::string& path, const std::function<void(std::ostream&)>& write) {
  const std::string part = path + ".part";
  std::error_code error;
  {
    std::ofstream out(part, std::ios::binary | std::ios::trunc);
    write(out);
    out.close();
    if (!out.good()) {
      fs::remove(part, error);
      return absl::UnavailableError(absl::StrCat(path, ": cannot be written"));
    }
  }
  fs::rename(part, path, error);
  if (error) return absl::UnavailableError(absl::StrCat(path, ": ", error.message()));
  return absl::OkStatus();
}

void WriteSafetensors(const nlohmann::ordered_json& metadata, const std::vector<Output>& outputs,
                      std::ostream& out) {
  nlohmann::ordered_json header = {{"__metadata__", metadata}};
  int64_t offset = 0;
  for (const Output& output : outputs) {
    header[output.name] = {
        {"dtype", output.dtype}, {"shape", output.shape}, {"data_offsets", {offset, offset + output.bytes}}};
    offset += output.bytes;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  for (int i = 0; i < 8; ++i) out.put(static_cast<char>(text.size() >> (8 * i)));
  out << text;
  for (const Output& output : outputs) output.data(out);
}

const char* LinearOf(FusedLinear linear) {
  switch (linear) {
    case FusedLinear::kQkv:
      return "self_attn.q_proj";
    case FusedLinear::kO:
      return "self_attn.o_proj";
    case FusedLinear::kGateUp:
      return "gate_proj";
    case FusedLinear::kDown:
      break;
  }
  return "down_proj";
}

}  // namespace

absl::StatusOr<CalibrationSums> CalibrationSums::Create(const Checkpoint& checkpoint,
                                                        const std::vector<std::string>& xtx) {
  CalibrationSums calibration;
  calibration.fingerprint_ = checkpoint.fingerprint();
  LANCET_ASSIGN_OR_RETURN(calibration.trunk_fingerprint_, StateDictFingerprint(checkpoint.trunk_file()));
  calibration.trunk_ = "source";
  std::map<std::string, std::vector<std::string>> names;
  std::map<std::string, int64_t> inputs;
  std::vector<bool> matched(xtx.size());
  std::map<std::string, bool> with_xtx;
  for (const TrunkLinear& linear : TrunkLinears(checkpoint.config())) {
    const std::string product = ProductName(linear.base);
    names[product].push_back(linear.base);
    inputs[product] = linear.in;
    if (checkpoint.trunk().Contains(absl::StrCat(linear.base, ".qweight"))) calibration.trunk_ = "nvfp4";
    for (size_t i = 0; i < xtx.size(); ++i) {
      if (!GlobMatches(xtx[i], linear.base)) continue;
      matched[i] = true;
      with_xtx[product] = true;
    }
  }
  for (size_t i = 0; i < xtx.size(); ++i) {
    if (!matched[i]) {
      return absl::InvalidArgumentError(absl::StrCat(
          "xtx: pattern ", Quote(xtx[i]), " matches no Linear; names are such as ", names.begin()->first));
    }
  }
  for (auto& [product, linears] : names) {
    calibration.products_.emplace(
        product, Product{std::move(linears), ProductStatistics(inputs[product], with_xtx[product])});
  }
  return calibration;
}

absl::StatusOr<CalibrationSums> CalibrationSums::Create(const CalibrationFile& file) {
  CalibrationSums calibration;
  if (file.fingerprint().empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(file.path(), ": has no metadata; lancet-calibrate did not write it"));
  }
  calibration.fingerprint_ = file.fingerprint();
  calibration.trunk_fingerprint_ = file.trunk_fingerprint();
  calibration.trunk_ = file.trunk();
  LANCET_RETURN_IF_ERROR(calibration.Add(file));
  return calibration;
}

ProductStatistics& CalibrationSums::Of(int64_t layer, bool gen, FusedLinear linear) {
  const std::string prefix = absl::StrCat("language_model.model.layers.", layer, ".");
  const char* suffix = gen ? "_moe_gen" : "";
  const bool attention = linear == FusedLinear::kQkv || linear == FusedLinear::kO;
  const std::string name = attention ? absl::StrCat(prefix, LinearOf(linear), suffix)
                                     : absl::StrCat(prefix, "mlp", suffix, ".", LinearOf(linear));
  return products_.at(name).statistics;
}

absl::Status CalibrationSums::Add(const CalibrationFile& file) {
  const auto refuse = [&](absl::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat(file.path(), ": ", what));
  };
  if (file.fingerprint() != fingerprint_ || file.trunk_fingerprint() != trunk_fingerprint_) {
    return refuse(absl::StrCat("fingerprint is ", Quote(file.fingerprint()), "; expected ", fingerprint_,
                               ": the statistics are those of another checkpoint"));
  }
  std::map<std::string, std::vector<std::string>> names;
  for (const std::string& linear : file.linears()) names[ProductName(linear)].push_back(linear);
  for (auto& [product, linears] : names) {
    absl::StatusOr<LinearStatistics> statistics = file.Get(product);
    if (!statistics.ok()) return statistics.status();
    auto found = products_.find(product);
    if (found == products_.end()) {
      found = products_
                  .emplace(product, Product{std::move(linears),
                                            ProductStatistics(statistics->in, !statistics->xtx.empty())})
                  .first;
    }
    const absl::Status added = found->second.statistics.Add(*statistics);
    if (!added.ok()) return refuse(absl::StrCat(product, " ", added.message()));
  }
  return absl::OkStatus();
}

absl::Status CalibrationSums::Write(const std::string& path) const {
  // Of eight bytes first, so that all are aligned.
  std::vector<Output> wide, narrow;
  for (const auto& [name, product] : products_) {
    const ProductStatistics& statistics = product.statistics;
    if (statistics.n_tokens() == 0) continue;
    const int64_t in = statistics.in();
    const std::vector<float> sums(statistics.sum_abs().begin(), statistics.sum_abs().end());
    const auto percentiles = statistics.Percentiles();
    for (const std::string& linear : product.linears) {
      wide.push_back(OutputOf<int64_t>(linear + ".n_tokens", "I64", {}, {statistics.n_tokens()}));
      narrow.push_back(OutputOf<float>(linear + ".sum_abs", "F32", {in}, sums));
      narrow.push_back(OutputOf<float>(linear + ".max_abs", "F32", {in}, statistics.max_abs()));
      narrow.push_back(OutputOf<float>(linear + ".percentiles", "F32",
                                       {static_cast<int64_t>(percentiles.size())},
                                       {percentiles.begin(), percentiles.end()}));
    }
    std::vector<int32_t> bits;
    std::vector<int64_t> counts;
    for (size_t i = 0; i < statistics.counts().size(); ++i) {
      if (statistics.counts()[i] == 0) continue;
      bits.push_back(static_cast<int32_t>(i));
      counts.push_back(statistics.counts()[i]);
    }
    const int64_t kinds = static_cast<int64_t>(bits.size());
    wide.push_back(OutputOf<int64_t>(name + ".abs_counts", "I64", {kinds}, std::move(counts)));
    narrow.push_back(OutputOf<int32_t>(name + ".abs_bits", "I32", {kinds}, std::move(bits)));
    if (!statistics.has_xtx()) continue;
    narrow.push_back({name + ".xtx",
                      "F32",
                      {in, in},
                      in * in * static_cast<int64_t>(sizeof(float)),
                      [&statistics, in](std::ostream& out) {
                        std::vector<float> row(in);
                        for (int64_t i = 0; i < in; ++i) {
                          statistics.CopyXtxRow(i, row.data());
                          WriteValues(out, row);
                        }
                      }});
  }
  if (wide.empty()) return absl::FailedPreconditionError(absl::StrCat(path, ": no Linear saw a row"));
  std::move(narrow.begin(), narrow.end(), std::back_inserter(wide));
  const nlohmann::ordered_json metadata = {{"format", "lancet-calibration"},
                                           {"version", "1"},
                                           {"fingerprint", fingerprint_},
                                           {"trunk_fingerprint", trunk_fingerprint_},
                                           {"trunk", trunk_}};
  return WriteThrough(path, [&](std::ostream& out) { WriteSafetensors(metadata, wide, out); });
}

absl::StatusOr<std::string> ActivationFactorsJson(const Checkpoint& checkpoint, const CalibrationFile& file,
                                                  double percentile) {
  if (file.fingerprint() != checkpoint.fingerprint()) {
    return absl::InvalidArgumentError(absl::StrCat(file.path(), ": fingerprint is ",
                                                   Quote(file.fingerprint()), "; the checkpoint's is ",
                                                   checkpoint.fingerprint()));
  }
  const auto place = std::find(kCalibrationPercentiles.begin(), kCalibrationPercentiles.end(), percentile);
  if (place == kCalibrationPercentiles.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("percentile is ", percentile, "; expected 99, 99.9, 99.99 or 100"));
  }
  nlohmann::ordered_json factors = nlohmann::ordered_json::object();
  for (const TrunkLinear& linear : TrunkLinears(checkpoint.config())) {
    if (!checkpoint.trunk().Contains(absl::StrCat(linear.base, ".qweight"))) continue;
    const absl::StatusOr<LinearStatistics> statistics = file.Get(linear.base);
    if (!statistics.ok() || statistics->percentiles.empty()) {
      return absl::FailedPreconditionError(
          absl::StrCat(file.path(), ": has no percentiles of ", linear.base, ": no request used it"));
    }
    const float largest = statistics->percentiles[place - kCalibrationPercentiles.begin()];
    // Of a Linear that saw zeros alone no factor is better than another.
    factors[linear.base] = largest > 0 ? largest / kLargestCodeTimesScale : 1.0;
  }
  return nlohmann::ordered_json(
             {{"version", 1}, {"fingerprint", checkpoint.fingerprint()}, {"factors", std::move(factors)}})
             .dump(1) +
         "\n";
}

absl::Status WriteTextFile(const std::string& path, absl::string_view text) {
  return WriteThrough(path, [&](std::ostream& out) { out << text; });
}

}  // namespace lancet
