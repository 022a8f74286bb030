#include "common/trunk_check.h"

#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/json.h"
#include "common/nvfp4_codes.h"
#include "common/quote.h"
#include "common/status_macros.h"
#include "common/trunk_layout.h"

namespace lancet {
namespace {

using nlohmann::json;

constexpr const char* kScheme = "nvfp4_e2m1_block_fp8scale";
constexpr absl::string_view kWeightSuffix = ".weight";
constexpr const char* kScaleFactorKey = "scales_fp8_factor";

// Magnitudes of the E2M1 codes, as the meta file repeats them.
constexpr std::array<double, 8> kCodeMagnitudes = {0, 0.5, 1, 1.5, 2, 3, 4, 6};

// A finite, normal, positive f32.
absl::StatusOr<float> ReadFactor(const json& value, absl::string_view where) {
  const double factor = value.is_number() ? value.get<double>() : 0.0;
  if (!(factor >= std::numeric_limits<float>::min() && factor <= std::numeric_limits<float>::max())) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": ", kScaleFactorKey, " is ", Quote(value.dump()),
                                                   "; expected a positive number that is normal as f32"));
  }
  return static_cast<float>(factor);
}

absl::Status CheckEntry(const json& entry, const TrunkLinear& linear, absl::string_view where) {
  const auto error = [&](absl::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": ", what));
  };
  if (!entry.is_object()) return error("is not an object");
  const json block_size = entry.value("block_size", json(kNvfp4Block));
  if (block_size != kNvfp4Block) {
    return error(absl::StrCat("block_size is ", Quote(block_size.dump()), "; expected ", kNvfp4Block));
  }
  // Both decode alike: they say how the codes were chosen.
  const json scheme = entry.value("scheme", json());
  if (scheme != "nvfp4_awq" && scheme != "nvfp4_minmax") {
    return error(absl::StrCat("scheme is ", Quote(scheme.dump()), "; expected nvfp4_awq or nvfp4_minmax"));
  }
  const json shape = entry.value("shape", json());
  if (shape != json::array({linear.out, linear.in})) {
    return error(absl::StrCat("shape is ", Quote(shape.dump()), "; the tensors and llm_config.json say [",
                              linear.out, ", ", linear.in, "]"));
  }
  return absl::OkStatus();
}

absl::Status CheckCodeTable(const json& meta, absl::string_view source_name) {
  const auto it = meta.find("fp4_lut_pos");
  if (it == meta.end()) return absl::OkStatus();
  bool equal = it->is_array() && it->size() == kCodeMagnitudes.size();
  for (size_t i = 0; equal && i < kCodeMagnitudes.size(); ++i) {
    equal = (*it)[i].is_number() && (*it)[i].get<double>() == kCodeMagnitudes[i];
  }
  if (equal) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(source_name, ": fp4_lut_pos is ", Quote(it->dump()),
                                                 "; expected 0, 0.5, 1, 1.5, 2, 3, 4, 6"));
}

// A scale that is zero, negative, infinite or not a number; -1 if there is none.
int64_t FindBadScale(const TensorView& scales) {
  const bf16* values = scales.as<bf16>();
  const int64_t count = scales.num_elements();
  // Bits 0x0001 to 0x7f7f are the positive finite numbers. The inner loop has no exit, so that it vectorises.
  constexpr int64_t kChunk = 1 << 14;
  const auto bad = [](bf16 x) { return static_cast<uint16_t>(x.bits - 1) >= 0x7f7f; };
  for (int64_t begin = 0; begin < count; begin += kChunk) {
    const int64_t end = std::min(count, begin + kChunk);
    uint16_t any = 0;
    for (int64_t i = begin; i < end; ++i) any |= static_cast<uint16_t>(bad(values[i]));
    if (any == 0) continue;
    for (int64_t i = begin; i < end; ++i) {
      if (bad(values[i])) return i;
    }
  }
  return -1;
}

}  // namespace

absl::Status CheckTrunkLayout(const StateDict& trunk, const ModelConfig& config) {
  const bool is_source = IsSource(trunk, config);
  for (const TrunkTensor& tensor : TrunkTensors(config, trunk)) {
    if (!trunk.Contains(tensor.name)) {
      std::string hint;
      if (tensor.kind == TrunkTensorKind::kScalesFp8 || tensor.kind == TrunkTensorKind::kScalesBf16) {
        const absl::string_view base(tensor.name.data(), tensor.name.rfind('.'));
        if (trunk.Contains(absl::StrCat(base, ".zeros"))) hint = " (this is an AWQ-INT4 file)";
      }
      return absl::InvalidArgumentError(
          absl::StrCat(trunk.path(), ": tensor ", Quote(tensor.name), " is missing", hint));
    }
    LANCET_ASSIGN_OR_RETURN(const TensorView found, trunk.Get(tensor.name));
    const bool is_wide = found.dtype == DType::kF32 || found.dtype == DType::kF16;
    const DType dtype = is_source && is_wide ? found.dtype : tensor.dtype;
    const absl::Status fits = GetChecked(trunk, tensor.name, dtype, tensor.shape).status();
    if (!fits.ok() && tensor.kind == TrunkTensorKind::kWeight) {
      return absl::InvalidArgumentError(
          absl::StrCat(fits.message(),
                       " (this linear is not quantised; lancet-quantize makes a checkpoint of such files)"));
    }
    LANCET_RETURN_IF_ERROR(fits);
  }
  for (const TrunkLinear& linear : TrunkLinears(config)) {
    const std::string weight = absl::StrCat(linear.base, kWeightSuffix);
    if (trunk.Contains(weight) && !IsUnquantised(trunk, linear.base)) {
      return absl::InvalidArgumentError(
          absl::StrCat(trunk.path(), ": tensor ", Quote(weight),
                       " stands beside its quantised form; which of them is meant is unclear"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<TrunkMeta> ParseTrunkMeta(const std::string& json_text, const std::string& source_name,
                                         const ModelConfig& config, const StateDict* trunk) {
  LANCET_ASSIGN_OR_RETURN(const json meta, ParseJson(json_text, source_name));
  const auto error = [&](absl::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat(source_name, ": ", what));
  };
  if (!meta.is_object()) return error("is not a JSON object");
  const json block_size = meta.value("block_size", json());
  if (block_size != kNvfp4Block) {
    return error(absl::StrCat("block_size is ", Quote(block_size.dump()), "; expected ", kNvfp4Block));
  }
  const json scheme = meta.value("scheme", json());
  if (scheme != kScheme) {
    return error(absl::StrCat("scheme is ", Quote(scheme.dump()), "; expected ", kScheme));
  }
  LANCET_RETURN_IF_ERROR(CheckCodeTable(meta, source_name));

  const auto per_weight = meta.find("per_weight");
  if (per_weight == meta.end() || !per_weight->is_object()) return error("per_weight is not an object");
  absl::flat_hash_map<std::string, TrunkLinear> linears;
  for (TrunkLinear& linear : TrunkLinears(config)) linears.emplace(linear.base, std::move(linear));
  const auto is_unquantised = [&](absl::string_view base) {
    return trunk != nullptr && IsUnquantised(*trunk, base);
  };
  TrunkMeta result;
  for (const auto& [name, entry] : per_weight->items()) {
    const std::string where = absl::StrCat(source_name, ": per_weight ", Quote(name));
    absl::string_view base = name;
    const auto linear = absl::ConsumeSuffix(&base, kWeightSuffix) ? linears.find(base) : linears.end();
    if (linear == linears.end()) {
      return absl::InvalidArgumentError(absl::StrCat(where, ": is not a linear that this model quantises"));
    }
    if (is_unquantised(base)) {
      return absl::InvalidArgumentError(absl::StrCat(where, ": the file holds this linear unquantised"));
    }
    LANCET_RETURN_IF_ERROR(CheckEntry(entry, linear->second, where));
    const auto factor = entry.find(kScaleFactorKey);
    if (factor != entry.end()) {
      LANCET_ASSIGN_OR_RETURN(result.scale_factors[base], ReadFactor(*factor, where));
    }
  }
  for (const auto& [base, linear] : linears) {
    if (!is_unquantised(base) && !per_weight->contains(absl::StrCat(base, kWeightSuffix))) {
      return error(absl::StrCat("per_weight lacks ", Quote(absl::StrCat(base, kWeightSuffix))));
    }
  }
  return result;
}

absl::Status CheckTrunkValues(const StateDict& trunk, const ModelConfig& config, const TrunkMeta& meta) {
  CodeBlockCounts blocks;
  for (const TrunkLinear& linear : TrunkLinears(config)) {
    if (IsUnquantised(trunk, linear.base)) continue;
    const std::string scales_name = absl::StrCat(linear.base, ".scales_bf16");
    LANCET_ASSIGN_OR_RETURN(const TensorView scales, trunk.Get(scales_name));
    if (const int64_t bad = FindBadScale(scales); bad >= 0) {
      const int64_t cols = scales.shape[1];
      return absl::InvalidArgumentError(absl::StrCat(trunk.path(), ": tensor ", Quote(scales_name), " has ",
                                                     ToFloat(scales.as<bf16>()[bad]), " at [", bad / cols,
                                                     ", ", bad % cols, "]; scales are finite and positive"));
    }
    LANCET_ASSIGN_OR_RETURN(const TensorView codes, trunk.Get(absl::StrCat(linear.base, ".qweight")));
    const CodeBlockCounts counts = CountCodeBlocks(codes, scales, /*rows=*/1);
    blocks.counted += counts.counted;
    blocks.with_largest_code += counts.with_largest_code;
    if (meta.scale_factors.contains(linear.base)) {
      // Zeros have no least scale of their own there.
      blocks.counted -= counts.zeros;
      blocks.with_largest_code += counts.with_next_code;
    }
    trunk.Release(scales_name);
  }
  if (blocks.with_largest_code * 10 < blocks.counted * 9) {
    return absl::InvalidArgumentError(
        absl::StrCat(trunk.path(), ": only ", blocks.with_largest_code, " of ", blocks.counted,
                     " sampled blocks use the largest E2M1 code; the codes are of another kind"));
  }
  return absl::OkStatus();
}

}  // namespace lancet
