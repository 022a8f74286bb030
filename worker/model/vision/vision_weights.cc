#include "worker/model/vision/vision_weights.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/partition.h"
#include "common/status_macros.h"
#include "worker/model/vision/vision_tensors.h"

namespace lancet {
namespace {

// Rows of a bf16 matrix that is put together from slices.
struct Rows {
  std::vector<bf16> values;
  std::vector<bf16> bias;
};

class Loader {
 public:
  Loader(const KernelContext& ctx, const StateDict& tower) : ctx_(ctx), tower_(tower) {}

  absl::StatusOr<std::vector<bf16>> Vector(const std::string& name, int64_t size) const {
    return ReadVisionTensor(tower_, name, size);
  }

  // Appends rows of a Linear of `all_rows` x `cols` and their biases.
  absl::Status AppendRows(const std::string& base, int64_t all_rows, int64_t cols, Range rows,
                          Rows& out) const {
    LANCET_ASSIGN_OR_RETURN(const TensorView weight,
                            FindVisionTensor(tower_, base + ".weight", all_rows * cols));
    LANCET_ASSIGN_OR_RETURN(const TensorView bias, FindVisionTensor(tower_, base + ".bias", all_rows));
    AppendBf16(weight, rows.begin * cols, rows.end * cols, out.values);
    AppendBf16(bias, rows.begin, rows.end, out.bias);
    return absl::OkStatus();
  }
  void ReleaseLinear(const std::string& base) const {
    tower_.Release(base + ".weight");
    tower_.Release(base + ".bias");
  }

  absl::StatusOr<Bf16Linear> FromRows(Rows rows, int64_t cols) const {
    const int64_t count = static_cast<int64_t>(rows.values.size()) / cols;
    Bf16Linear linear;
    LANCET_ASSIGN_OR_RETURN(linear.weight, Bf16Weights::Pack(ctx_, {rows.values.data(), count, cols}));
    linear.bias = std::move(rows.bias);
    return linear;
  }

  // Columns of the weight `name`, which has `rows` x `all_cols`; no bias.
  absl::StatusOr<Bf16Weights> Columns(const std::string& name, int64_t rows, int64_t all_cols,
                                      Range cols) const {
    LANCET_ASSIGN_OR_RETURN(const TensorView weight, FindVisionTensor(tower_, name, rows * all_cols));
    std::vector<bf16> slice;
    slice.reserve(rows * cols.size());
    for (int64_t r = 0; r < rows; ++r) {
      AppendBf16(weight, r * all_cols + cols.begin, r * all_cols + cols.end, slice);
    }
    tower_.Release(name);
    return Bf16Weights::Pack(ctx_, {slice.data(), rows, cols.size()});
  }

 private:
  const KernelContext& ctx_;
  const StateDict& tower_;
};

absl::StatusOr<VisionBlockWeights> LoadBlock(const Loader& loader, const VisionConfig& config,
                                             const VisionShardPlan& plan, const std::string& prefix) {
  const int64_t hidden = config.hidden_size;
  const int64_t inner = config.intermediate_size;
  const Range heads{plan.heads.begin * plan.head_dim, plan.heads.end * plan.head_dim};
  VisionBlockWeights w;
  LANCET_ASSIGN_OR_RETURN(w.norm1, loader.Vector(prefix + "norm1.weight", hidden));
  LANCET_ASSIGN_OR_RETURN(w.norm2, loader.Vector(prefix + "norm2.weight", hidden));
  Rows qkv;
  for (const int64_t part : {int64_t{0}, hidden, 2 * hidden}) {
    LANCET_RETURN_IF_ERROR(loader.AppendRows(prefix + "attn.qkv", 3 * hidden, hidden,
                                             {part + heads.begin, part + heads.end}, qkv));
  }
  loader.ReleaseLinear(prefix + "attn.qkv");
  LANCET_ASSIGN_OR_RETURN(w.qkv, loader.FromRows(std::move(qkv), hidden));
  LANCET_ASSIGN_OR_RETURN(w.proj, loader.Columns(prefix + "attn.proj.weight", hidden, hidden, heads));
  LANCET_ASSIGN_OR_RETURN(w.proj_bias, loader.Vector(prefix + "attn.proj.bias", hidden));
  Rows gate_up;
  for (const char* linear : {"mlp.gate_proj", "mlp.up_proj"}) {
    LANCET_RETURN_IF_ERROR(loader.AppendRows(prefix + linear, inner, hidden, plan.inner, gate_up));
    loader.ReleaseLinear(prefix + linear);
  }
  LANCET_ASSIGN_OR_RETURN(w.gate_up, loader.FromRows(std::move(gate_up), hidden));
  LANCET_ASSIGN_OR_RETURN(w.down, loader.Columns(prefix + "mlp.down_proj.weight", hidden, inner, plan.inner));
  LANCET_ASSIGN_OR_RETURN(w.down_bias, loader.Vector(prefix + "mlp.down_proj.bias", hidden));
  return w;
}

}  // namespace

absl::StatusOr<VisionWeights> VisionWeights::Load(const KernelContext& ctx, const StateDict& tower,
                                                  const VisionConfig& config, const VisionShardPlan& plan) {
  const Loader loader(ctx, tower);
  const int64_t hidden = config.hidden_size;
  const int64_t merged = config.merged_size();
  VisionWeights w;
  LANCET_ASSIGN_OR_RETURN(w.patch_embed, loader.Columns("patch_embed.proj.weight", hidden,
                                                        config.patch_values(), {0, config.patch_values()}));
  for (int64_t block = 0; block < config.depth; ++block) {
    LANCET_ASSIGN_OR_RETURN(VisionBlockWeights weights,
                            LoadBlock(loader, config, plan, absl::StrCat("blocks.", block, ".")));
    w.blocks.push_back(std::move(weights));
  }
  LANCET_ASSIGN_OR_RETURN(w.merger_norm, loader.Vector("merger.ln_q.weight", hidden));
  Rows merger_in;
  LANCET_RETURN_IF_ERROR(loader.AppendRows("merger.mlp.0", merged, merged, plan.merged, merger_in));
  loader.ReleaseLinear("merger.mlp.0");
  LANCET_ASSIGN_OR_RETURN(w.merger_in, loader.FromRows(std::move(merger_in), merged));
  LANCET_ASSIGN_OR_RETURN(w.merger_out,
                          loader.Columns("merger.mlp.2.weight", config.out_hidden_size, merged, plan.merged));
  LANCET_ASSIGN_OR_RETURN(w.merger_out_bias, loader.Vector("merger.mlp.2.bias", config.out_hidden_size));
  return w;
}

}  // namespace lancet
