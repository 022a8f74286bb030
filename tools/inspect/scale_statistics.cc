#include "tools/inspect/scale_statistics.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/bf16.h"
#include "common/model_config.h"
#include "common/quote.h"
#include "common/status_macros.h"

namespace lancet {
namespace {

constexpr uint8_t kE4m3Nan = 0x7f;
constexpr float kE4m3Max = 448.0f;

// Exponent bias 7, three mantissa bits; exponent 0 counts in units of 2^-9.
float E4m3ToFloat(uint8_t byte) {
  const int exponent = (byte >> 3) & 0x0f;
  const int mantissa = byte & 0x07;
  const float magnitude = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                                        : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
  return (byte & 0x80) != 0 ? -magnitude : magnitude;
}

// Distance of neighbouring E4M3 numbers around a positive value.
float E4m3Step(float value) {
  const int exponent = std::clamp(std::ilogb(value), -6, 8);
  return std::ldexp(1.0f, exponent - 3);
}

class Collector {
 public:
  Collector() {
    for (size_t byte = 0; byte < e4m3_.size(); ++byte) e4m3_[byte] = E4m3ToFloat(static_cast<uint8_t>(byte));
  }

  void Add(const TensorView& fp8, const TensorView& scales, float factor) {
    ++stats_.linears;
    const int64_t count = scales.num_elements();
    stats_.blocks += count;
    const uint8_t* bytes = fp8.as<uint8_t>();
    const bf16* values = scales.as<bf16>();
    for (int64_t i = 0; i < count; ++i) AddBlock(bytes[i], values[i], factor);
  }
  void AddCodes(const CodeBlockCounts& counts) { stats_.codes += counts; }

  ScaleStatistics Finish() {
    int64_t valid = 0;
    for (const int64_t n : histogram_) valid += n;
    stats_.bf16_invalid = stats_.blocks - valid;
    if (valid > 0) {
      stats_.bf16_min = AtRank(0);
      stats_.bf16_median = AtRank(valid / 2);
      stats_.bf16_max = AtRank(valid - 1);
    }
    return stats_;
  }

 private:
  void AddBlock(uint8_t byte, bf16 value, float factor) {
    const uint8_t magnitude = byte & 0x7f;
    stats_.e4m3_nan += magnitude == kE4m3Nan;
    stats_.e4m3_zero += magnitude == 0;
    stats_.e4m3_subnormal += magnitude != 0 && magnitude < 0x08;
    stats_.e4m3_negative += (byte & 0x80) != 0 && magnitude != 0;
    const bool valid = value.bits > 0 && value.bits < histogram_.size();
    if (!valid) return;
    ++histogram_[value.bits];
    const float scale = std::min(ToFloat(value) / factor, kE4m3Max);
    stats_.e4m3_off += magnitude == kE4m3Nan || std::abs(e4m3_[byte] - scale) > E4m3Step(scale);
  }

  // Positive bf16 numbers sort as their bits do.
  float AtRank(int64_t rank) const {
    for (size_t bits = 0; bits < histogram_.size(); ++bits) {
      rank -= histogram_[bits];
      if (rank < 0) return ToFloat(bf16{static_cast<uint16_t>(bits)});
    }
    return 0;
  }

  ScaleStatistics stats_;
  std::array<float, 256> e4m3_;
  std::vector<int64_t> histogram_ = std::vector<int64_t>(0x7f80, 0);  // by bits; finite positive ones only
};

}  // namespace

absl::StatusOr<ScaleStatistics> CollectScaleStatistics(
    const StateDict& dict, int64_t code_rows, const absl::flat_hash_map<std::string, float>& factors) {
  Collector collector;
  for (const std::string& name : dict.names()) {
    absl::string_view base = name;
    if (!absl::ConsumeSuffix(&base, ".scales_bf16")) continue;
    const std::string fp8_name = absl::StrCat(base, ".scales_fp8");
    const std::string codes_name = absl::StrCat(base, ".qweight");
    LANCET_ASSIGN_OR_RETURN(const TensorView scales, dict.Get(name));
    if (scales.dtype != DType::kBf16 || scales.shape.size() != 2) {
      return absl::InvalidArgumentError(absl::StrCat(dict.path(), ": tensor ", Quote(name), " is ",
                                                     DTypeName(scales.dtype), " ", ShapeString(scales.shape),
                                                     "; expected BF16 [out, in / 16]"));
    }
    LANCET_ASSIGN_OR_RETURN(const TensorView fp8, GetChecked(dict, fp8_name, DType::kU8, scales.shape));
    LANCET_ASSIGN_OR_RETURN(
        const TensorView codes,
        GetChecked(dict, codes_name, DType::kU8, {scales.shape[0], scales.shape[1] * (kNvfp4Block / 2)}));
    const auto factor = factors.find(base);
    collector.Add(fp8, scales, factor == factors.end() ? 1.0f : factor->second);
    collector.AddCodes(CountCodeBlocks(codes, scales, code_rows));
    for (const std::string& used : {name, fp8_name, codes_name}) dict.Release(used);
  }
  return collector.Finish();
}

}  // namespace lancet
