// The vision tower as a checkpoint holds it: which tensors there must be, and where they are. Names are the
// tower's own ("blocks.0.attn.qkv.weight"); in a trunk file they follow "vit_model.".
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/state_dict.h"
#include "common/tensor_view.h"
#include "common/vision_config.h"

namespace lancet {

inline constexpr absl::string_view kVisionPrefix = "vit_model.";

struct VisionTensor {
  std::string name;
  Shape shape;
};

// Every tensor of a tower: 12 a block and 6 more.
std::vector<VisionTensor> VisionTensors(const VisionConfig& config);

// A tower's tensors from two places: what the trunk file holds as "vit_model.<name>" wins over the same name
// in the tower's own file, tensor by tensor, as the release's own loader does it. Both outlive the object.
class VisionTower final : public StateDict {
 public:
  // `file` may be null: then all is in the trunk.
  VisionTower(const StateDict& trunk, const StateDict* file);

  const std::vector<std::string>& names() const override { return names_; }
  bool Contains(absl::string_view name) const override;
  absl::StatusOr<TensorView> Get(absl::string_view name) const override;
  const std::string& path() const override { return path_; }
  void Release(absl::string_view name) const override;
  // Names that come from the trunk file.
  int64_t tensors_in_trunk() const { return tensors_in_trunk_; }

 private:
  bool InTrunk(absl::string_view name) const;

  const StateDict& trunk_;
  const StateDict* const file_;
  std::vector<std::string> names_;
  std::string path_;
  int64_t tensors_in_trunk_ = 0;
};

// Names, element types (F32, BF16 or F16) and shapes of everything VisionTensors lists. Other tensors are
// allowed. InvalidArgument names the first tensor that is missing or odd.
absl::Status CheckVisionTower(const StateDict& tower, const VisionConfig& config);

}  // namespace lancet
