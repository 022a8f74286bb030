#include "worker/cuda/cuda_trunk_weights.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/status_macros.h"
#include "worker/cuda/nvfp4_probe.h"
#include "worker/loader/device_shapes.h"
#include "worker/loader/padded_matrix.h"
#include "worker/loader/weight_loader.h"

namespace lancet {
namespace {

constexpr absl::Duration kUploadTimeout = absl::Seconds(60);

class Uploader {
 public:
  Uploader(const CudaContext& ctx, const StateDict& dict, const ModelConfig& config, const ShardPlan& plan,
           CudaProducts products, const LinearPolicy& policy)
      : ctx_(ctx),
        dict_(dict),
        config_(config),
        plan_(plan),
        products_(products),
        policy_(policy),
        probe_(ctx) {}

  absl::StatusOr<DeviceArray<bf16>> Vector(const std::string& name, int64_t size) const {
    LANCET_ASSIGN_OR_RETURN(const std::vector<bf16> values, LoadVector(dict_, name, size));
    LANCET_ASSIGN_OR_RETURN(DeviceArray<bf16> array, DeviceArray<bf16>::CopyOf(values, ctx_.stream()));
    LANCET_RETURN_IF_ERROR(ctx_.Wait(kUploadTimeout));
    return array;
  }

  absl::StatusOr<DeviceArray<bf16>> Matrix(const std::string& name, int64_t rows, int64_t cols) const {
    return MatrixRows(name, rows, cols, {0, rows});
  }
  absl::StatusOr<DeviceArray<bf16>> MatrixRows(const std::string& name, int64_t rows, int64_t cols,
                                               Range range) const {
    LANCET_ASSIGN_OR_RETURN(const ConstMatrixView<bf16> matrix, LoadMatrix(dict_, name, rows, cols));
    LANCET_ASSIGN_OR_RETURN(
        DeviceArray<bf16> array,
        DeviceArray<bf16>::CopyOf(
            absl::MakeConstSpan(matrix.data + range.begin * cols, static_cast<size_t>(range.size() * cols)),
            ctx_.stream()));
    LANCET_RETURN_IF_ERROR(ctx_.Wait(kUploadTimeout));
    dict_.Release(name);
    return array;
  }

  absl::StatusOr<CudaDense> Dense(const std::string& base, int64_t rows, int64_t cols) const {
    CudaDense dense;
    dense.rows = rows;
    dense.cols = cols;
    LANCET_ASSIGN_OR_RETURN(dense.weight, Matrix(absl::StrCat(base, ".weight"), rows, cols));
    LANCET_ASSIGN_OR_RETURN(dense.bias, Vector(absl::StrCat(base, ".bias"), rows));
    return dense;
  }

  // `suffix`: "" or "_moe_gen"; attention has it behind the Linear's name, the MLP behind the container's.
  absl::StatusOr<CudaExpert> Expert(int64_t layer, const std::string& suffix, bool few_rows) {
    const std::string prefix = absl::StrCat("language_model.model.layers.", layer, ".");
    const std::string attention = prefix + "self_attn.";
    const std::string mlp = absl::StrCat(prefix, "mlp", suffix, ".");
    const int64_t hidden = config_.hidden_size;
    const int64_t q_rows = config_.num_heads * config_.head_dim;
    const int64_t kv_rows = config_.num_kv_heads * config_.head_dim;
    const int64_t inner = config_.intermediate_size;
    CudaExpert expert;
    LANCET_ASSIGN_OR_RETURN(expert.input_norm,
                            Vector(absl::StrCat(prefix, "input_layernorm", suffix, ".weight"), hidden));
    LANCET_ASSIGN_OR_RETURN(
        expert.post_norm,
        Vector(absl::StrCat(prefix, "post_attention_layernorm", suffix, ".weight"), hidden));
    LANCET_ASSIGN_OR_RETURN(expert.q_norm,
                            Vector(absl::StrCat(attention, "q_norm", suffix, ".weight"), config_.head_dim));
    LANCET_ASSIGN_OR_RETURN(expert.k_norm,
                            Vector(absl::StrCat(attention, "k_norm", suffix, ".weight"), config_.head_dim));
    std::vector<LinearView> qkv;
    std::vector<std::string> bases;
    std::vector<bf16> bias;
    for (const auto& [linear, rows] :
         {std::pair<const char*, int64_t>{"q_proj", q_rows}, {"k_proj", kv_rows}, {"v_proj", kv_rows}}) {
      const std::string base = absl::StrCat(attention, linear, suffix);
      LANCET_ASSIGN_OR_RETURN(const LinearView view,
                              LoadLinearSlice(dict_, base, linear, rows, hidden, plan_));
      qkv.push_back(view);
      bases.push_back(base);
      LANCET_ASSIGN_OR_RETURN(const LinearSlice slice, SliceLinear(plan_, linear, rows, hidden));
      LANCET_ASSIGN_OR_RETURN(const std::vector<bf16> part,
                              LoadVector(dict_, base + ".bias", rows, slice.rows));
      bias.insert(bias.end(), part.begin(), part.end());
    }
    LANCET_ASSIGN_OR_RETURN(expert.qkv, CudaLinear::Create(ctx_, qkv, bias, FormsOf(qkv, bases, few_rows)));
    LANCET_ASSIGN_OR_RETURN(
        expert.o, Single(absl::StrCat(attention, "o_proj", suffix), "o_proj", hidden, q_rows, few_rows));
    std::vector<LinearView> gate_up;
    bases.clear();
    PaddedMatrix padded[3];
    LANCET_ASSIGN_OR_RETURN(const ModelConfig mine, ShardConfig(config_, plan_));
    const int64_t padded_inner = mine.intermediate_size;
    for (const char* linear : {"gate_proj", "up_proj"}) {
      LANCET_ASSIGN_OR_RETURN(const LinearView view,
                              LoadLinearSlice(dict_, mlp + linear, linear, inner, hidden, plan_));
      gate_up.push_back(padded[gate_up.size()].Pad(view, padded_inner, hidden));
      bases.push_back(mlp + linear);
    }
    CudaLinearForms forms = FormsOf(gate_up, bases, few_rows);
    forms.in_turns = true;
    LANCET_ASSIGN_OR_RETURN(expert.gate_up, CudaLinear::Create(ctx_, gate_up, {}, forms));
    LANCET_ASSIGN_OR_RETURN(LinearView down,
                            LoadLinearSlice(dict_, mlp + "down_proj", "down_proj", hidden, inner, plan_));
    down = padded[2].Pad(down, hidden, padded_inner);
    LANCET_ASSIGN_OR_RETURN(expert.down, CudaLinear::Create(ctx_, absl::MakeConstSpan(&down, 1), {},
                                                            FormsOf({down}, {mlp + "down_proj"}, few_rows)));
    for (const char* linear : {"q_proj", "k_proj", "v_proj", "o_proj"}) {
      ReleaseLinear(dict_, absl::StrCat(attention, linear, suffix));
    }
    for (const char* linear : {"gate_proj", "up_proj", "down_proj"}) ReleaseLinear(dict_, mlp + linear);
    return expert;
  }

 private:
  CudaLinearForms FormsOf(const std::vector<LinearView>& parts, const std::vector<std::string>& bases,
                          bool few_rows) {
    int64_t rows = 0;
    for (const LinearView& part : parts) rows += part.rows();
    CudaLinearForms forms;
    forms.few_rows = few_rows;
    const bool stays = policy_.StaysBf16(bases);
    forms.fp8 = products_ == CudaProducts::kFp8 && !stays;
    forms.nvfp4 =
        products_ == CudaProducts::kNvfp4 && !stays && !AnyBf16(parts) && probe_.Works(rows, parts[0].cols());
    forms.activation_factor = policy_.ActivationFactor(bases);
    forms.weight_factor = policy_.WeightFactor(bases);
    forms.bf16 = !forms.fp8 && !forms.nvfp4;
    return forms;
  }
  absl::StatusOr<CudaLinear> Single(const std::string& base, const char* linear, int64_t rows, int64_t cols,
                                    bool few_rows) {
    LANCET_ASSIGN_OR_RETURN(const LinearView view, LoadLinearSlice(dict_, base, linear, rows, cols, plan_));
    return CudaLinear::Create(ctx_, absl::MakeConstSpan(&view, 1), {}, FormsOf({view}, {base}, few_rows));
  }

  const CudaContext& ctx_;
  const StateDict& dict_;
  const ModelConfig& config_;
  const ShardPlan& plan_;
  const CudaProducts products_;
  const LinearPolicy& policy_;
  Nvfp4Probe probe_;
};

int64_t BytesOf(const CudaExpert& e) {
  return e.qkv.resident_bytes() + e.o.resident_bytes() + e.gate_up.resident_bytes() + e.down.resident_bytes();
}

}  // namespace

absl::StatusOr<CudaTrunkWeights> CudaTrunkWeights::Load(const CudaContext& ctx, const StateDict& dict,
                                                        const ModelConfig& config, const ShardPlan& plan,
                                                        CudaProducts products, bool with_head,
                                                        const LinearPolicy& policy) {
  Uploader uploader(ctx, dict, config, plan, products, policy);
  const int64_t hidden = config.hidden_size;
  CudaTrunkWeights w;
  LANCET_ASSIGN_OR_RETURN(
      w.embed_tokens, uploader.Matrix("language_model.model.embed_tokens.weight", config.vocab_size, hidden));
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    Layer& weights = w.layers.emplace_back();
    LANCET_ASSIGN_OR_RETURN(weights.und, uploader.Expert(layer, "", /*few_rows=*/true));
    LANCET_ASSIGN_OR_RETURN(weights.gen, uploader.Expert(layer, "_moe_gen", /*few_rows=*/false));
  }
  LANCET_ASSIGN_OR_RETURN(w.gen_norm, uploader.Vector("language_model.model.norm_moe_gen.weight", hidden));
  if (with_head) {
    LANCET_ASSIGN_OR_RETURN(w.und_norm, uploader.Vector("language_model.model.norm.weight", hidden));
    w.head_rows = SplitEvenly(config.vocab_size, plan.rank, plan.world_size);
    LANCET_ASSIGN_OR_RETURN(
        w.head, uploader.MatrixRows("language_model.lm_head.weight", config.vocab_size, hidden, w.head_rows));
  }
  LANCET_ASSIGN_OR_RETURN(const TensorView time_weight, dict.Get("time_embedder.mlp.0.weight"));
  if (time_weight.shape.size() != 2 || time_weight.shape[1] % cuda::kPanelCols != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "time_embedder.mlp.0.weight in ", dict.path(), " has shape ", ShapeString(time_weight.shape),
        "; expected two extents, the second a multiple of ", cuda::kPanelCols));
  }
  LANCET_ASSIGN_OR_RETURN(w.time0, uploader.Dense("time_embedder.mlp.0", hidden, time_weight.shape[1]));
  LANCET_ASSIGN_OR_RETURN(w.time2, uploader.Dense("time_embedder.mlp.2", hidden, hidden));
  LANCET_ASSIGN_OR_RETURN(w.vae2llm, uploader.Dense("vae2llm", hidden, kLatentChannels));
  LANCET_ASSIGN_OR_RETURN(w.llm2vae, uploader.Dense("llm2vae", kLatentChannels, hidden));
  return w;
}

int64_t CudaTrunkWeights::resident_bytes() const {
  int64_t bytes = embed_tokens.bytes() + head.bytes();
  for (const Layer& layer : layers) bytes += BytesOf(layer.und) + BytesOf(layer.gen);
  return bytes;
}

}  // namespace lancet
