// Factors of NVFP4 activations, found by calibration: a file beside a checkpoint's trunk.
//
//   {"version": 1,
//    "fingerprint": "0123456789abcdef0123456789abcdef",
//    "factors": {"language_model.model.layers.0.self_attn.q_proj": 0.00131, ...}}
//
// A Linear's input x is quantised as x ~ code * E4M3 scale * factor; a factor of (largest |x|) / (448 * 6)
// makes the largest block use the largest scale, and every factor above it loses nothing until scales become
// subnormal. The file names every NVFP4 Linear of the trunk, by its name there without ".qweight", each with
// a positive factor that is finite and normal as f32. Other keys are refused. The fingerprint is the
// checkpoint's (fingerprint.h), so that factors of other weights are not taken for these.
#pragma once

#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lancet {

inline constexpr char kActivationFactorsFile[] = "activation_factors.json";
// 504 names of the release are 50 kB.
inline constexpr size_t kMaxActivationFactorsBytes = size_t{1} << 20;

using ActivationFactors = absl::flat_hash_map<std::string, float>;

// InvalidArgument names `source`, the key and what is wrong with it. `linears`: every name that must be
// there.
absl::StatusOr<ActivationFactors> ParseActivationFactors(absl::string_view json_text,
                                                         absl::string_view source,
                                                         absl::string_view fingerprint,
                                                         const std::vector<std::string>& linears);

}  // namespace lancet
