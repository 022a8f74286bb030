// What a tensor is for, told from its name alone, so that single files can be inspected without a
// configuration.
#pragma once

#include "absl/strings/string_view.h"

namespace lancet {

enum class TensorKind {
  kCodes,
  kScalesFp8,
  kScalesBf16,
  kDense,
  kBias,
  kNorm,
  kEmbedding,
  kHead,
  kAdapter,
  kLatentTable,
  kVisionTower,
  kVaeDecoder,
  kVaeEncoder,
  kOther,
};

// For people: "NVFP4 codes".
absl::string_view TensorKindName(TensorKind kind);

TensorKind KindOf(absl::string_view name);

// Stands in some trunk files without being part of the trunk; not worth a remark there.
inline bool IsTolerated(TensorKind kind) {
  return kind == TensorKind::kLatentTable || kind == TensorKind::kVisionTower;
}

}  // namespace lancet
