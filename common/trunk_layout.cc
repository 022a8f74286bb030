#include "common/trunk_layout.h"

#include <algorithm>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"

namespace lancet {
namespace {

// Width of the sinusoid that feeds the time embedder.
constexpr int64_t kTimeFeatures = 256;

std::string LayerPrefix(int64_t layer) { return absl::StrCat("language_model.model.layers.", layer, "."); }

}  // namespace

std::vector<TrunkLinear> TrunkLinears(const ModelConfig& config) {
  const int64_t hidden = config.hidden_size;
  const int64_t inner = config.intermediate_size;
  const int64_t q_width = config.num_heads * config.head_dim;
  const int64_t kv_width = config.num_kv_heads * config.head_dim;
  std::vector<TrunkLinear> linears;
  linears.reserve(static_cast<size_t>(config.num_layers) * 14);
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    const std::string prefix = LayerPrefix(layer);
    // The suffix of the generation expert follows the projection in attention, the container in the MLP.
    for (const char* gen : {"", "_moe_gen"}) {
      const std::string attention = absl::StrCat(prefix, "self_attn.");
      linears.push_back({absl::StrCat(attention, "q_proj", gen), q_width, hidden, true});
      linears.push_back({absl::StrCat(attention, "k_proj", gen), kv_width, hidden, true});
      linears.push_back({absl::StrCat(attention, "v_proj", gen), kv_width, hidden, true});
      linears.push_back({absl::StrCat(attention, "o_proj", gen), hidden, q_width, false});
      const std::string mlp = absl::StrCat(prefix, "mlp", gen, ".");
      linears.push_back({absl::StrCat(mlp, "gate_proj"), inner, hidden, false});
      linears.push_back({absl::StrCat(mlp, "up_proj"), inner, hidden, false});
      linears.push_back({absl::StrCat(mlp, "down_proj"), hidden, inner, false});
    }
  }
  return linears;
}

bool IsUnquantised(const StateDict& trunk, absl::string_view base) {
  return trunk.Contains(absl::StrCat(base, ".weight")) && !trunk.Contains(absl::StrCat(base, ".qweight"));
}

bool IsSource(const StateDict& trunk, const ModelConfig& config) {
  const std::vector<TrunkLinear> linears = TrunkLinears(config);
  return std::all_of(linears.begin(), linears.end(),
                     [&](const TrunkLinear& linear) { return IsUnquantised(trunk, linear.base); });
}

namespace {

std::vector<TrunkTensor> TensorsOf(const ModelConfig& config,
                                   absl::FunctionRef<bool(absl::string_view base)> is_unquantised) {
  using Kind = TrunkTensorKind;
  const int64_t hidden = config.hidden_size;
  std::vector<TrunkTensor> tensors;
  const auto add = [&](std::string name, Kind kind, DType dtype, Shape shape) {
    tensors.push_back({std::move(name), kind, dtype, std::move(shape)});
  };
  const auto add_bf16 = [&](std::string name, Kind kind, Shape shape) {
    add(std::move(name), kind, DType::kBf16, std::move(shape));
  };

  for (const TrunkLinear& linear : TrunkLinears(config)) {
    if (is_unquantised(linear.base)) {
      add_bf16(absl::StrCat(linear.base, ".weight"), Kind::kWeight, {linear.out, linear.in});
    } else {
      const Shape scales = {linear.out, linear.in / kNvfp4Block};
      add(absl::StrCat(linear.base, ".qweight"), Kind::kCodes, DType::kU8, {linear.out, linear.in / 2});
      add(absl::StrCat(linear.base, ".scales_fp8"), Kind::kScalesFp8, DType::kU8, scales);
      add_bf16(absl::StrCat(linear.base, ".scales_bf16"), Kind::kScalesBf16, scales);
    }
    if (linear.has_bias) add_bf16(absl::StrCat(linear.base, ".bias"), Kind::kBias, {linear.out});
  }
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    const std::string prefix = LayerPrefix(layer);
    for (const char* gen : {"", "_moe_gen"}) {
      for (const char* norm : {"input_layernorm", "post_attention_layernorm"}) {
        add_bf16(absl::StrCat(prefix, norm, gen, ".weight"), Kind::kNorm, {hidden});
      }
      for (const char* norm : {"self_attn.q_norm", "self_attn.k_norm"}) {
        add_bf16(absl::StrCat(prefix, norm, gen, ".weight"), Kind::kNorm, {config.head_dim});
      }
    }
  }
  add_bf16("language_model.model.norm.weight", Kind::kNorm, {hidden});
  add_bf16("language_model.model.norm_moe_gen.weight", Kind::kNorm, {hidden});
  add_bf16("language_model.model.embed_tokens.weight", Kind::kEmbedding, {config.vocab_size, hidden});
  add_bf16("language_model.lm_head.weight", Kind::kHead, {config.vocab_size, hidden});
  add_bf16("time_embedder.mlp.0.weight", Kind::kAdapter, {hidden, kTimeFeatures});
  add_bf16("time_embedder.mlp.0.bias", Kind::kAdapter, {hidden});
  add_bf16("time_embedder.mlp.2.weight", Kind::kAdapter, {hidden, hidden});
  add_bf16("time_embedder.mlp.2.bias", Kind::kAdapter, {hidden});
  add_bf16("vae2llm.weight", Kind::kAdapter, {hidden, kLatentChannels});
  add_bf16("vae2llm.bias", Kind::kAdapter, {hidden});
  add_bf16("llm2vae.weight", Kind::kAdapter, {kLatentChannels, hidden});
  add_bf16("llm2vae.bias", Kind::kAdapter, {kLatentChannels});
  return tensors;
}

}  // namespace

std::vector<TrunkTensor> TrunkTensors(const ModelConfig& config) {
  return TensorsOf(config, [](absl::string_view) { return false; });
}

std::vector<TrunkTensor> TrunkTensors(const ModelConfig& config, const StateDict& trunk) {
  return TensorsOf(config, [&](absl::string_view base) { return IsUnquantised(trunk, base); });
}

}  // namespace lancet
