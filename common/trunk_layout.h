// What an NVFP4 trunk file must hold for given sizes: names, element types and shapes. The one place that
// knows how the release names its tensors.
//
// A quantised linear with base name B, y = W x + bias with W [out, in], is stored as
//   B.qweight      u8   [out, in / 2]    two E2M1 codes a byte, even column in the low nibble
//   B.scales_fp8   u8   [out, in / 16]   E4M3 bytes of the block scales; never used for arithmetic
//   B.scales_bf16  bf16 [out, in / 16]   the block scales
//   B.bias         bf16 [out]            q, k and v only
// and its unquantised form B.weight is absent. A file may keep any of them unquantised instead:
//   B.weight       bf16 [out, in]
// beside the bias, and nothing of the quantised form.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/dtype.h"
#include "common/model_config.h"
#include "common/state_dict.h"
#include "common/tensor_view.h"

namespace lancet {

struct TrunkLinear {
  std::string base;
  int64_t out = 0;
  int64_t in = 0;
  bool has_bias = false;
};

// The 14 linears of every layer that can be quantised: seven of the understanding expert, seven of the
// generation expert.
std::vector<TrunkLinear> TrunkLinears(const ModelConfig& config);

// Whether the file holds the linear `base` unquantised: its weight, and no codes.
bool IsUnquantised(const StateDict& trunk, absl::string_view base);

// Whether it holds all of them so: a trunk before quantisation. Its tensors may be F32 or F16 where others
// are BF16.
bool IsSource(const StateDict& trunk, const ModelConfig& config);

enum class TrunkTensorKind {
  kCodes,
  kScalesFp8,
  kScalesBf16,
  kWeight,  // of a linear that stays unquantised
  kBias,
  kNorm,
  kEmbedding,
  kHead,
  kAdapter
};

struct TrunkTensor {
  std::string name;
  TrunkTensorKind kind = TrunkTensorKind::kCodes;
  DType dtype = DType::kBf16;
  Shape shape;
};

// Every tensor that must be there if all linears are quantised, each once.
std::vector<TrunkTensor> TrunkTensors(const ModelConfig& config);
// Every tensor that must be there beside the weights that `trunk` holds unquantised, and these.
std::vector<TrunkTensor> TrunkTensors(const ModelConfig& config, const StateDict& trunk);

}  // namespace lancet
