#include "tools/inspect/inspection.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/fingerprint.h"
#include "common/json.h"
#include "common/mapped_file.h"
#include "common/status_macros.h"
#include "common/trunk_layout.h"
#include "worker/loader/shard_plan.h"
#include "worker/model/vision/vision_shard_plan.h"

namespace lancet {
namespace {

// Passes everything on and remembers which tensors were asked for: what a check does not touch, nothing
// reads.
class RecordingStateDict final : public StateDict {
 public:
  explicit RecordingStateDict(const StateDict& inner) : inner_(inner) {}

  const std::vector<std::string>& names() const override { return inner_.names(); }
  bool Contains(absl::string_view name) const override { return inner_.Contains(name); }
  absl::StatusOr<TensorView> Get(absl::string_view name) const override {
    used_.insert(std::string(name));
    return inner_.Get(name);
  }
  const std::string& path() const override { return inner_.path(); }
  bool used(const std::string& name) const { return used_.contains(name); }

 private:
  const StateDict& inner_;
  mutable absl::flat_hash_set<std::string> used_;  // one thread only
};

absl::StatusOr<std::vector<std::string>> Unexpected(const Checkpoint& checkpoint) {
  std::vector<std::string> unexpected;
  absl::flat_hash_set<std::string> known;
  for (TrunkTensor& tensor : TrunkTensors(checkpoint.config(), checkpoint.trunk()))
    known.insert(std::move(tensor.name));
  for (const std::string& name : checkpoint.trunk().names()) {
    if (!known.contains(name) && !IsTolerated(KindOf(name))) unexpected.push_back(name);
  }
  const RecordingStateDict vae(checkpoint.vae());
  LANCET_RETURN_IF_ERROR(CheckVae(vae).status());
  for (const std::string& name : vae.names()) {
    if (!vae.used(name)) unexpected.push_back(name);
  }
  if (checkpoint.vision() != nullptr) {
    known.clear();
    for (VisionTensor& tensor : VisionTensors(*checkpoint.vision_config()))
      known.insert(std::move(tensor.name));
    for (const std::string& name : checkpoint.vision()->names()) {
      if (!known.contains(name)) unexpected.push_back(name);
    }
  }
  return unexpected;
}

// "…layers.0.self_attn.q_proj_moe_gen" -> "q_proj": what sharding rules call it.
absl::string_view LinearName(absl::string_view base) {
  absl::string_view name = base.substr(base.rfind('.') + 1);
  absl::ConsumeSuffix(&name, "_moe_gen");
  return name;
}

absl::StatusOr<int64_t> TrunkBytesOfRank(const Checkpoint& checkpoint, int rank, int world_size) {
  const ModelConfig& config = checkpoint.config();
  LANCET_ASSIGN_OR_RETURN(const ShardPlan plan, MakeShardPlan(config, rank, world_size));
  constexpr int64_t kBf16Bytes = 2;
  int64_t bytes = 0;
  for (const TrunkLinear& linear : TrunkLinears(config)) {
    LANCET_ASSIGN_OR_RETURN(const LinearSlice slice,
                            SliceLinear(plan, LinearName(linear.base), linear.out, linear.in));
    const int64_t weights = slice.rows.size() * slice.cols.size();
    bytes += IsUnquantised(checkpoint.trunk(), linear.base)
                 ? weights * kBf16Bytes
                 : weights / 2 + weights / kNvfp4Block * kBf16Bytes;
    if (linear.has_bias) bytes += slice.rows.size() * kBf16Bytes;
  }
  for (const TrunkTensor& tensor : TrunkTensors(config)) {
    // The head is for text and stays unread when pictures are drawn.
    if (tensor.kind == TrunkTensorKind::kNorm || tensor.kind == TrunkTensorKind::kEmbedding ||
        tensor.kind == TrunkTensorKind::kAdapter) {
      bytes += NumElements(tensor.shape) * kBf16Bytes;
    }
  }
  return bytes;
}

absl::StatusOr<int64_t> VisionBytesOfRank(const VisionConfig& config, int rank, int world_size) {
  LANCET_ASSIGN_OR_RETURN(const VisionShardPlan plan, MakeVisionShardPlan(config, rank, world_size));
  constexpr int64_t kBf16Bytes = 2;
  const int64_t hidden = config.hidden_size;
  // Split Linears lose rows or columns; norms and the biases behind a sum stay whole.
  const int64_t attention = 4 * hidden * plan.head_cols() + 3 * plan.head_cols() + hidden;
  const int64_t mlp = 3 * hidden * plan.inner.size() + 2 * plan.inner.size() + hidden;
  const int64_t merger = (config.merged_size() + 1 + config.out_hidden_size) * plan.merged.size() +
                         config.out_hidden_size + hidden;
  const int64_t values =
      config.depth * (attention + mlp + 2 * hidden) + merger + hidden * config.patch_values();
  return values * kBf16Bytes;
}

absl::StatusOr<std::map<std::string, int64_t>> ReadSchemes(const std::string& meta_path) {
  constexpr size_t kMaxMetaBytes = size_t{64} << 20;
  std::map<std::string, int64_t> schemes;
  if (meta_path.empty()) return schemes;
  LANCET_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(meta_path, kMaxMetaBytes));
  LANCET_ASSIGN_OR_RETURN(const nlohmann::json meta, ParseJson(text, meta_path));
  // Checkpoint::Open has checked the form.
  for (const auto& entry : meta["per_weight"]) ++schemes[entry["scheme"].get<std::string>()];
  return schemes;
}

}  // namespace

absl::StatusOr<FileInspection> InspectFile(const StateDict& dict, int64_t code_rows, const TrunkMeta& meta) {
  FileInspection file;
  file.path = dict.path();
  for (const std::string& name : dict.names()) {
    LANCET_ASSIGN_OR_RETURN(const TensorView tensor, dict.Get(name));
    TensorGroup& group = file.groups[KindOf(name)];
    ++group.tensors;
    group.bytes += tensor.num_bytes();
    ++group.dtypes[std::string(DTypeName(tensor.dtype))];
    file.bytes += tensor.num_bytes();
    file.tensors.push_back({name, tensor.dtype, tensor.shape});
  }
  LANCET_ASSIGN_OR_RETURN(file.scales, CollectScaleStatistics(dict, code_rows, meta.scale_factors));
  LANCET_ASSIGN_OR_RETURN(file.fingerprint, StateDictFingerprint(dict));
  return file;
}

absl::StatusOr<CheckpointInspection> InspectCheckpoint(const Checkpoint& checkpoint, int64_t code_rows) {
  CheckpointInspection result;
  result.paths = checkpoint.paths();
  result.config = checkpoint.config();
  result.card = checkpoint.card();
  result.fingerprint = checkpoint.fingerprint();
  result.vae_layout = checkpoint.vae_layout();
  LANCET_ASSIGN_OR_RETURN(result.schemes, ReadSchemes(checkpoint.paths().trunk_meta));
  LANCET_ASSIGN_OR_RETURN(result.trunk,
                          InspectFile(checkpoint.trunk_file(), code_rows, checkpoint.trunk_meta()));
  LANCET_ASSIGN_OR_RETURN(result.vae, InspectFile(checkpoint.vae(), code_rows));
  result.vision_config = checkpoint.vision_config();
  if (checkpoint.vision() != nullptr) {
    LANCET_ASSIGN_OR_RETURN(result.vision, InspectFile(*checkpoint.vision(), code_rows));
    result.vision_tensors_in_trunk = checkpoint.vision()->tensors_in_trunk();
  }
  LANCET_ASSIGN_OR_RETURN(result.unexpected, Unexpected(checkpoint));
  for (const int world_size : {1, 2, 4}) {
    RankMemory memory{world_size};
    for (int rank = 0; rank < world_size; ++rank) {
      LANCET_ASSIGN_OR_RETURN(const int64_t bytes, TrunkBytesOfRank(checkpoint, rank, world_size));
      memory.trunk_bytes = std::max(memory.trunk_bytes, bytes);
      if (!result.vision_config.has_value()) continue;
      LANCET_ASSIGN_OR_RETURN(const int64_t vision,
                              VisionBytesOfRank(*result.vision_config, rank, world_size));
      memory.vision_bytes = std::max(memory.vision_bytes, vision);
    }
    result.memory.push_back(memory);
  }
  return result;
}

}  // namespace lancet
