// From an unquantised checkpoint to the two files of a quantised one: nvfp4_state_dict.safetensors and
// nvfp4_meta.json (common/trunk_layout.h, common/trunk_check.h).
//
// Tensors are read, quantised and written one after another, group of Linears by group: at most one group is
// held, and what the system keeps of the source's map is let go behind it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/model_config.h"
#include "common/state_dict.h"
#include "common/thread_pool.h"
#include "tools/quantize/input_statistics.h"

namespace lancet {

// How codes, scales and factors per channel are chosen.
//   kPublished  as in the published checkpoints: scales from the largest weight of a block; with statistics,
//               factors per channel by their search, or those that the calibration file brings along
//   kBest       scales searched for, weighted by statistics where there are some, in two-level form; factors
//               by the same measure, none if that is better
//   kGptq       as kBest, and rounding that makes up for its errors where the calibration has XᵀX
enum class Recipe { kPublished, kBest, kGptq };
absl::StatusOr<Recipe> ParseRecipe(absl::string_view name);
absl::string_view RecipeName(Recipe recipe);

struct QuantiseOptions {
  Recipe recipe = Recipe::kBest;
  absl::flat_hash_set<std::string> bf16_linears;  // names of Linears that stay in bf16
  const Calibration* calibration = nullptr;       // null: none
  // Told after every step: bytes written and in all.
  std::function<void(uint64_t done, uint64_t total)> progress;
};

struct QuantisedLinear {
  std::string base;
  int64_t out = 0;
  int64_t in = 0;
  bool is_awq = false;  // factors per channel are folded in
  bool is_compensated = false;
  float scale_factor = 0.0f;  // of two-level scales; 0: none
};

struct QuantiseSummary {
  std::vector<QuantisedLinear> linears;
  std::vector<std::string> bf16_linears;        // sorted
  std::vector<std::string> without_statistics;  // Linears that a calibration was given for, but not theirs
  uint64_t bytes = 0;                           // of data
};

// Writes the state dict, which must not exist yet. Every tensor of the source is there, in bf16; what
// `config` says a trunk must have is checked first. InvalidArgument names the tensor that is missing, odd or
// not finite.
absl::StatusOr<QuantiseSummary> WriteQuantised(const StateDict& source, const ModelConfig& config,
                                               const QuantiseOptions& options, ThreadPool& pool,
                                               const std::string& path);

// The text of nvfp4_meta.json.
std::string MetaJson(const QuantiseSummary& summary, const QuantiseOptions& options);

}  // namespace lancet
