#include "worker/model/trunk_weights.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "worker/loader/weight_loader.h"

namespace lancet {
namespace {

// Names of one expert: attention puts the suffix behind "_proj", the MLP behind the container.
struct ExpertNames {
  std::string layer;   // "language_model.model.layers.3."
  std::string suffix;  // "" or "_moe_gen"

  std::string Attention(absl::string_view linear) const {
    return absl::StrCat(layer, "self_attn.", linear, suffix);
  }
  std::string Mlp(absl::string_view linear) const { return absl::StrCat(layer, "mlp", suffix, ".", linear); }
  std::string LayerNorm(absl::string_view norm) const { return absl::StrCat(layer, norm, suffix, ".weight"); }
  std::string HeadNorm(absl::string_view norm) const {
    return absl::StrCat(layer, "self_attn.", norm, suffix, ".weight");
  }
};

absl::StatusOr<ExpertWeights> LoadExpert(const KernelContext& ctx, const StateDict& dict,
                                         const ModelConfig& config, const ShardPlan& plan,
                                         const LinearPolicy& policy, const ExpertNames& names) {
  const int64_t hidden = config.hidden_size;
  const int64_t q_rows = config.num_heads * config.head_dim;
  const int64_t kv_rows = config.num_kv_heads * config.head_dim;
  const int64_t inner = config.intermediate_size;
  // Tokens of answers and the markers around latents are und rows.
  const bool single_rows = names.suffix.empty();
  ExpertWeights w;
  LANCET_ASSIGN_OR_RETURN(w.input_norm, LoadVector(dict, names.LayerNorm("input_layernorm"), hidden));
  LANCET_ASSIGN_OR_RETURN(w.post_norm, LoadVector(dict, names.LayerNorm("post_attention_layernorm"), hidden));
  LANCET_ASSIGN_OR_RETURN(w.q_norm, LoadVector(dict, names.HeadNorm("q_norm"), config.head_dim));
  LANCET_ASSIGN_OR_RETURN(w.k_norm, LoadVector(dict, names.HeadNorm("k_norm"), config.head_dim));

  std::vector<LinearView> qkv;
  std::vector<std::string> bases;
  for (const auto& [linear, rows] :
       {std::pair<const char*, int64_t>{"q_proj", q_rows}, {"k_proj", kv_rows}, {"v_proj", kv_rows}}) {
    const std::string base = names.Attention(linear);
    LANCET_ASSIGN_OR_RETURN(const LinearView view, LoadLinearSlice(dict, base, linear, rows, hidden, plan));
    qkv.push_back(view);
    bases.push_back(base);
    LANCET_ASSIGN_OR_RETURN(const LinearSlice slice, SliceLinear(plan, linear, rows, hidden));
    LANCET_ASSIGN_OR_RETURN(const std::vector<bf16> bias,
                            LoadVector(dict, absl::StrCat(base, ".bias"), rows, slice.rows));
    w.qkv_bias.insert(w.qkv_bias.end(), bias.begin(), bias.end());
  }
  LANCET_ASSIGN_OR_RETURN(w.qkv, LayerLinear::Create(ctx, qkv, policy.ChoiceOf(bases), single_rows));
  LANCET_ASSIGN_OR_RETURN(const LinearView o,
                          LoadLinearSlice(dict, names.Attention("o_proj"), "o_proj", hidden, q_rows, plan));
  LANCET_ASSIGN_OR_RETURN(
      w.o, LayerLinear::Create(ctx, absl::MakeConstSpan(&o, 1), policy.ChoiceOf({names.Attention("o_proj")}),
                               single_rows));

  std::vector<LinearView> gate_up;
  bases.clear();
  for (const char* linear : {"gate_proj", "up_proj"}) {
    LANCET_ASSIGN_OR_RETURN(const LinearView view,
                            LoadLinearSlice(dict, names.Mlp(linear), linear, inner, hidden, plan));
    gate_up.push_back(view);
    bases.push_back(names.Mlp(linear));
  }
  LANCET_ASSIGN_OR_RETURN(w.gate_up, LayerLinear::Create(ctx, gate_up, policy.ChoiceOf(bases), single_rows));
  LANCET_ASSIGN_OR_RETURN(const LinearView down,
                          LoadLinearSlice(dict, names.Mlp("down_proj"), "down_proj", hidden, inner, plan));
  LANCET_ASSIGN_OR_RETURN(w.down,
                          LayerLinear::Create(ctx, absl::MakeConstSpan(&down, 1),
                                              policy.ChoiceOf({names.Mlp("down_proj")}), single_rows));

  // Everything is repacked: the pages that were read need not stay.
  for (const char* linear : {"q_proj", "k_proj", "v_proj", "o_proj"})
    ReleaseLinear(dict, names.Attention(linear));
  for (const char* linear : {"gate_proj", "up_proj", "down_proj"}) ReleaseLinear(dict, names.Mlp(linear));
  return w;
}

absl::StatusOr<Bf16Linear> LoadDense(const KernelContext& ctx, const StateDict& dict, const std::string& base,
                                     int64_t rows, int64_t cols) {
  Bf16Linear linear;
  LANCET_ASSIGN_OR_RETURN(const ConstMatrixView<bf16> weight,
                          LoadMatrix(dict, absl::StrCat(base, ".weight"), rows, cols));
  LANCET_ASSIGN_OR_RETURN(linear.weight, Bf16Weights::Pack(ctx, weight));
  LANCET_ASSIGN_OR_RETURN(linear.bias, LoadVector(dict, absl::StrCat(base, ".bias"), rows));
  return linear;
}

}  // namespace

absl::StatusOr<TrunkWeights> TrunkWeights::Load(const KernelContext& ctx, const StateDict& dict,
                                                const ModelConfig& config, const ShardPlan& plan,
                                                bool with_head, const LinearPolicy& policy) {
  TrunkWeights w;
  LANCET_ASSIGN_OR_RETURN(
      const ConstMatrixView<bf16> embed,
      LoadMatrix(dict, "language_model.model.embed_tokens.weight", config.vocab_size, config.hidden_size));
  w.embed_tokens = std::make_unique_for_overwrite<bf16[]>(static_cast<size_t>(embed.rows * embed.cols));
  ctx.pool().ParallelFor(embed.rows, 64, [&](int64_t begin, int64_t end, int /*thread*/) {
    std::copy(embed.row(begin), embed.row(end), w.embed_tokens.get() + begin * embed.cols);
  });
  dict.Release("language_model.model.embed_tokens.weight");
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    const std::string prefix = absl::StrCat("language_model.model.layers.", layer, ".");
    LayerWeights& weights = w.layers.emplace_back();
    for (const auto& [expert, suffix] :
         {std::pair<Expert, const char*>{Expert::kUnd, ""}, {Expert::kGen, "_moe_gen"}}) {
      LANCET_ASSIGN_OR_RETURN(weights.expert[static_cast<int>(expert)],
                              LoadExpert(ctx, dict, config, plan, policy, {prefix, suffix}));
    }
  }
  LANCET_ASSIGN_OR_RETURN(w.gen_norm,
                          LoadVector(dict, "language_model.model.norm_moe_gen.weight", config.hidden_size));
  LANCET_ASSIGN_OR_RETURN(w.und_norm,
                          LoadVector(dict, "language_model.model.norm.weight", config.hidden_size));
  if (with_head) {
    w.head_rows = SplitEvenly(config.vocab_size, plan.rank, plan.world_size);
    LANCET_ASSIGN_OR_RETURN(
        const ConstMatrixView<bf16> head,
        LoadMatrix(dict, "language_model.lm_head.weight", config.vocab_size, config.hidden_size));
    LANCET_ASSIGN_OR_RETURN(
        w.head, HeadLinear::Create(ctx, head.Rows(w.head_rows.begin, w.head_rows.size()), policy.head()));
    dict.Release("language_model.lm_head.weight");
  }
  LANCET_ASSIGN_OR_RETURN(const TensorView time_weight, dict.Get("time_embedder.mlp.0.weight"));
  if (time_weight.shape.size() != 2) {
    return absl::InvalidArgumentError(absl::StrCat("time_embedder.mlp.0.weight in ", dict.path(),
                                                   " has shape ", ShapeString(time_weight.shape),
                                                   "; expected two extents"));
  }
  w.time_features = time_weight.shape[1];
  const int64_t hidden = config.hidden_size;
  LANCET_ASSIGN_OR_RETURN(w.time_in, LoadDense(ctx, dict, "time_embedder.mlp.0", hidden, w.time_features));
  LANCET_ASSIGN_OR_RETURN(w.time_out, LoadDense(ctx, dict, "time_embedder.mlp.2", hidden, hidden));
  LANCET_ASSIGN_OR_RETURN(w.vae2llm, LoadDense(ctx, dict, "vae2llm", hidden, kLatentChannels));
  LANCET_ASSIGN_OR_RETURN(w.llm2vae, LoadDense(ctx, dict, "llm2vae", kLatentChannels, hidden));
  return w;
}

}  // namespace lancet
