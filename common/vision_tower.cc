#include "common/vision_tower.h"

#include <algorithm>
#include <iterator>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/quote.h"
#include "common/status_macros.h"

namespace lancet {
namespace {

// Names in the trunk file, without the prefix; sorted like the file's.
std::vector<std::string> NamesInTrunk(const StateDict& trunk) {
  std::vector<std::string> names;
  for (absl::string_view name : trunk.names()) {
    if (absl::StartsWith(name, kVisionPrefix)) names.emplace_back(name.substr(kVisionPrefix.size()));
  }
  return names;
}

}  // namespace

std::vector<VisionTensor> VisionTensors(const VisionConfig& config) {
  const int64_t hidden = config.hidden_size;
  const int64_t inner = config.intermediate_size;
  const int64_t merged = config.merged_size();
  std::vector<VisionTensor> tensors;
  const auto add_linear = [&](const std::string& name, int64_t out, int64_t in) {
    tensors.push_back({absl::StrCat(name, ".weight"), {out, in}});
    tensors.push_back({absl::StrCat(name, ".bias"), {out}});
  };
  tensors.push_back({"patch_embed.proj.weight",
                     {hidden, 3, config.temporal_patch_size, config.patch_size, config.patch_size}});
  for (int64_t block = 0; block < config.depth; ++block) {
    const std::string prefix = absl::StrCat("blocks.", block, ".");
    tensors.push_back({prefix + "norm1.weight", {hidden}});
    tensors.push_back({prefix + "norm2.weight", {hidden}});
    add_linear(prefix + "attn.qkv", 3 * hidden, hidden);
    add_linear(prefix + "attn.proj", hidden, hidden);
    add_linear(prefix + "mlp.gate_proj", inner, hidden);
    add_linear(prefix + "mlp.up_proj", inner, hidden);
    add_linear(prefix + "mlp.down_proj", hidden, inner);
  }
  tensors.push_back({"merger.ln_q.weight", {hidden}});
  add_linear("merger.mlp.0", merged, merged);
  add_linear("merger.mlp.2", config.out_hidden_size, merged);
  return tensors;
}

VisionTower::VisionTower(const StateDict& trunk, const StateDict* file) : trunk_(trunk), file_(file) {
  const std::vector<std::string> in_trunk = NamesInTrunk(trunk);
  tensors_in_trunk_ = static_cast<int64_t>(in_trunk.size());
  if (file_ == nullptr) {
    names_ = in_trunk;
    path_ = trunk.path();
    return;
  }
  std::set_union(in_trunk.begin(), in_trunk.end(), file_->names().begin(), file_->names().end(),
                 std::back_inserter(names_));
  path_ = in_trunk.empty() ? file_->path()
                           : absl::StrCat(file_->path(), " and ", kVisionPrefix, "* of ", trunk.path());
}

bool VisionTower::InTrunk(absl::string_view name) const {
  return tensors_in_trunk_ > 0 && trunk_.Contains(absl::StrCat(kVisionPrefix, name));
}

bool VisionTower::Contains(absl::string_view name) const {
  return InTrunk(name) || (file_ != nullptr && file_->Contains(name));
}

absl::StatusOr<TensorView> VisionTower::Get(absl::string_view name) const {
  if (file_ == nullptr || InTrunk(name)) return trunk_.Get(absl::StrCat(kVisionPrefix, name));
  return file_->Get(name);
}

void VisionTower::Release(absl::string_view name) const {
  if (InTrunk(name)) {
    trunk_.Release(absl::StrCat(kVisionPrefix, name));
  } else if (file_ != nullptr) {
    file_->Release(name);
  }
}

absl::Status CheckVisionTower(const StateDict& tower, const VisionConfig& config) {
  for (const VisionTensor& tensor : VisionTensors(config)) {
    const auto error = [&](absl::string_view what) {
      return absl::InvalidArgumentError(
          absl::StrCat(tower.path(), ": tensor ", Quote(tensor.name), " of the vision tower ", what));
    };
    if (!tower.Contains(tensor.name)) return error("is missing");
    LANCET_ASSIGN_OR_RETURN(const TensorView view, tower.Get(tensor.name));
    if (view.dtype != DType::kF32 && view.dtype != DType::kBf16 && view.dtype != DType::kF16) {
      return error(absl::StrCat("is ", DTypeName(view.dtype), "; expected F32, BF16 or F16"));
    }
    if (view.shape != tensor.shape) {
      return error(absl::StrCat("has shape ", ShapeString(view.shape), "; its config says ",
                                ShapeString(tensor.shape)));
    }
  }
  return absl::OkStatus();
}

}  // namespace lancet
