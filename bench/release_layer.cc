#include "bench/release_layer.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/bf16.h"
#include "kernels/nvfp4.h"

namespace lancet {

void RandomStateDict::AddBf16(const std::string& name, Shape shape, float low, float high) {
  std::uniform_real_distribution<float> value(low, high);
  std::vector<std::byte>& data = Allocate(name, DType::kBf16, std::move(shape));
  bf16* out = reinterpret_cast<bf16*>(data.data());
  for (size_t i = 0; i < data.size() / sizeof(bf16); ++i) out[i] = ToBf16(value(random_));
}

void RandomStateDict::AddCodes(const std::string& name, Shape shape) {
  std::vector<std::byte>& data = Allocate(name, DType::kU8, std::move(shape));
  for (std::byte& b : data) b = static_cast<std::byte>(random_() & 0xff);
}

void RandomStateDict::AddLinear(const std::string& base, int64_t rows, int64_t cols, bool bias) {
  AddCodes(base + ".qweight", {rows, cols / 2});
  AddBf16(base + ".scales_bf16", {rows, cols / kNvfp4Block}, 0.002f, 0.01f);
  if (bias) AddBf16(base + ".bias", {rows}, -0.1f, 0.1f);
}

absl::StatusOr<TensorView> RandomStateDict::Get(absl::string_view name) const {
  const auto it = tensors_.find(std::string(name));
  if (it == tensors_.end()) return absl::NotFoundError(absl::StrCat("no tensor ", name));
  return it->second.view;
}

std::vector<std::byte>& RandomStateDict::Allocate(const std::string& name, DType dtype, Shape shape) {
  Entry& entry = tensors_[name];
  entry.view.dtype = dtype;
  entry.view.shape = std::move(shape);
  entry.data.resize(entry.view.num_bytes());
  entry.view.data = entry.data.data();
  names_.push_back(name);
  return entry.data;
}

ModelConfig ReleaseLayerConfig(int64_t num_layers) {
  ModelConfig config;
  config.hidden_size = 2048;
  config.num_layers = num_layers;
  config.num_heads = 16;
  config.num_kv_heads = 2;
  config.head_dim = 128;
  config.intermediate_size = 11008;
  config.vocab_size = 16;
  return config;
}

RandomStateDict MakeRelease(const ModelConfig& c) {
  RandomStateDict dict;
  const int64_t kv = c.num_kv_heads * c.head_dim;
  for (int64_t i = 0; i < 2 * c.num_layers; ++i) {
    const std::string suffix = i % 2 == 0 ? "" : "_moe_gen";
    const std::string layer = absl::StrCat("language_model.model.layers.", i / 2, ".");
    const std::string attention = layer + "self_attn.";
    dict.AddLinear(attention + "q_proj" + suffix, c.hidden_size, c.hidden_size, true);
    dict.AddLinear(attention + "k_proj" + suffix, kv, c.hidden_size, true);
    dict.AddLinear(attention + "v_proj" + suffix, kv, c.hidden_size, true);
    dict.AddLinear(attention + "o_proj" + suffix, c.hidden_size, c.hidden_size, false);
    const std::string mlp = layer + "mlp" + suffix + ".";
    dict.AddLinear(mlp + "gate_proj", c.intermediate_size, c.hidden_size, false);
    dict.AddLinear(mlp + "up_proj", c.intermediate_size, c.hidden_size, false);
    dict.AddLinear(mlp + "down_proj", c.hidden_size, c.intermediate_size, false);
    dict.AddBf16(attention + "q_norm" + suffix + ".weight", {c.head_dim}, 0.9f, 1.1f);
    dict.AddBf16(attention + "k_norm" + suffix + ".weight", {c.head_dim}, 0.9f, 1.1f);
    dict.AddBf16(layer + "input_layernorm" + suffix + ".weight", {c.hidden_size}, 0.9f, 1.1f);
    dict.AddBf16(layer + "post_attention_layernorm" + suffix + ".weight", {c.hidden_size}, 0.9f, 1.1f);
  }
  dict.AddBf16("language_model.model.norm_moe_gen.weight", {c.hidden_size}, 0.9f, 1.1f);
  dict.AddBf16("language_model.model.norm.weight", {c.hidden_size}, 0.9f, 1.1f);
  dict.AddBf16("language_model.model.embed_tokens.weight", {c.vocab_size, c.hidden_size}, -1, 1);
  dict.AddBf16("time_embedder.mlp.0.weight", {c.hidden_size, 256}, -.1f, .1f);
  dict.AddBf16("time_embedder.mlp.2.weight", {c.hidden_size, c.hidden_size}, -.1f, .1f);
  dict.AddBf16("vae2llm.weight", {c.hidden_size, kLatentChannels}, -.1f, .1f);
  dict.AddBf16("llm2vae.weight", {kLatentChannels, c.hidden_size}, -.1f, .1f);
  for (const char* base : {"time_embedder.mlp.0.bias", "time_embedder.mlp.2.bias", "vae2llm.bias"}) {
    dict.AddBf16(base, {c.hidden_size}, -.1f, .1f);
  }
  dict.AddBf16("llm2vae.bias", {kLatentChannels}, -.1f, .1f);
  return dict;
}

}  // namespace lancet
