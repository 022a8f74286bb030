#include "bench/random_model.h"

#include <cmath>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/bf16.h"
#include "common/vision_tower.h"

namespace lancet {
namespace {

constexpr absl::string_view kLayers = "language_model.model.layers.";
constexpr absl::string_view kBlocks = "blocks.";  // of the vision tower

// "language_model.model.layers.17.x" -> "language_model.model.layers.0.x", likewise "blocks.17.x".
std::string FirstLayer(absl::string_view name) {
  for (const absl::string_view prefix : {kLayers, kBlocks}) {
    if (name.substr(0, prefix.size()) != prefix) continue;
    const absl::string_view rest = name.substr(prefix.size());
    const size_t dot = rest.find('.');
    return absl::StrCat(prefix, "0", dot == absl::string_view::npos ? "" : rest.substr(dot));
  }
  return std::string(name);
}

}  // namespace

VisionConfig ReleaseVisionConfig() {
  VisionConfig config;
  config.depth = 32;
  config.hidden_size = 1280;
  config.num_heads = 16;
  config.head_dim = 80;
  config.intermediate_size = 3420;
  config.full_attention_blocks = {7, 15, 23, 31};
  config.out_hidden_size = 2048;
  return config;
}

ModelConfig ReleaseConfig() {
  ModelConfig config;
  config.hidden_size = 2048;
  config.num_layers = 36;
  config.num_heads = 16;
  config.num_kv_heads = 2;
  config.head_dim = 128;
  config.intermediate_size = 11008;
  config.vocab_size = 151936;
  return config;
}

uint32_t RandomModel::Bits() {
  state_ ^= state_ << 13;
  state_ ^= state_ >> 7;
  state_ ^= state_ << 17;
  return static_cast<uint32_t>(state_ >> 32);
}

void RandomModel::Add(const std::string& name, DType dtype, Shape shape, float low, float high) {
  Entry& entry = tensors_[name];
  entry.view.dtype = dtype;
  entry.view.shape = std::move(shape);
  const int64_t count = entry.view.num_elements();
  entry.data.resize(entry.view.num_bytes());
  entry.view.data = entry.data.data();
  names_.push_back(name);
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t bits = Bits();
    if (dtype == DType::kU8) {
      entry.data[i] = static_cast<std::byte>(bits & 0xff);
      continue;
    }
    const float value = low + (high - low) * static_cast<float>(bits >> 8) * 0x1p-24f;
    if (dtype == DType::kBf16) {
      reinterpret_cast<bf16*>(entry.data.data())[i] = ToBf16(value);
    } else {
      reinterpret_cast<float*>(entry.data.data())[i] = value;
    }
  }
}

void RandomModel::AddLinear(const std::string& base, int64_t rows, int64_t cols, bool bias) {
  Add(base + ".qweight", DType::kU8, {rows, cols / 2}, 0, 0);
  Add(base + ".scales_bf16", DType::kBf16, {rows, cols / kNvfp4Block}, 0.002f, 0.01f);
  if (bias) Add(base + ".bias", DType::kBf16, {rows}, -0.1f, 0.1f);
}

std::unique_ptr<RandomModel> RandomModel::Trunk(const ModelConfig& c) {
  auto model = std::make_unique<RandomModel>();
  const int64_t kv = c.num_kv_heads * c.head_dim;
  const auto norm = [&](const std::string& name, int64_t size) {
    model->Add(name, DType::kBf16, {size}, 0.9f, 1.1f);
  };
  const auto dense = [&](const std::string& base, int64_t rows, int64_t cols) {
    const float spread = 1.0f / std::sqrt(static_cast<float>(cols));
    model->Add(base + ".weight", DType::kBf16, {rows, cols}, -spread, spread);
    model->Add(base + ".bias", DType::kBf16, {rows}, -0.1f, 0.1f);
  };
  for (const std::string suffix : {"", "_moe_gen"}) {
    const std::string layer = absl::StrCat(kLayers, "0.");
    const std::string attention = layer + "self_attn.";
    model->AddLinear(attention + "q_proj" + suffix, c.num_heads * c.head_dim, c.hidden_size, true);
    model->AddLinear(attention + "k_proj" + suffix, kv, c.hidden_size, true);
    model->AddLinear(attention + "v_proj" + suffix, kv, c.hidden_size, true);
    model->AddLinear(attention + "o_proj" + suffix, c.hidden_size, c.num_heads * c.head_dim, false);
    const std::string mlp = layer + "mlp" + suffix + ".";
    model->AddLinear(mlp + "gate_proj", c.intermediate_size, c.hidden_size, false);
    model->AddLinear(mlp + "up_proj", c.intermediate_size, c.hidden_size, false);
    model->AddLinear(mlp + "down_proj", c.hidden_size, c.intermediate_size, false);
    norm(attention + "q_norm" + suffix + ".weight", c.head_dim);
    norm(attention + "k_norm" + suffix + ".weight", c.head_dim);
    norm(layer + "input_layernorm" + suffix + ".weight", c.hidden_size);
    norm(layer + "post_attention_layernorm" + suffix + ".weight", c.hidden_size);
    norm("language_model.model.norm" + suffix + ".weight", c.hidden_size);
  }
  for (const char* name : {"language_model.model.embed_tokens.weight", "language_model.lm_head.weight"}) {
    model->Add(name, DType::kBf16, {c.vocab_size, c.hidden_size}, -0.05f, 0.05f);
  }
  dense("time_embedder.mlp.0", c.hidden_size, 256);
  dense("time_embedder.mlp.2", c.hidden_size, c.hidden_size);
  dense("vae2llm", c.hidden_size, kLatentChannels);
  dense("llm2vae", kLatentChannels, c.hidden_size);
  return model;
}

void RandomModel::AddConv(const std::string& prefix, int64_t out, int64_t in, int64_t kernel) {
  const float spread = 1.7f / std::sqrt(static_cast<float>(in * kernel * kernel));
  Add(prefix + ".weight", DType::kF32, {out, in, kernel, kernel}, -spread, spread);
  Add(prefix + ".bias", DType::kF32, {out}, -0.05f, 0.05f);
}

void RandomModel::AddBlock(const std::string& prefix, int64_t in, int64_t out) {
  Add(prefix + ".residual.0.gamma", DType::kF32, {in}, 0.9f, 1.1f);
  AddConv(prefix + ".residual.2", out, in, 3);
  Add(prefix + ".residual.3.gamma", DType::kF32, {out}, 0.9f, 1.1f);
  AddConv(prefix + ".residual.6", out, out, 3);
  if (in != out) AddConv(prefix + ".shortcut", out, in, 1);
}

std::unique_ptr<RandomModel> RandomModel::VaeDecoder() {
  auto model = std::make_unique<RandomModel>();
  constexpr int64_t kMiddle = 1024;
  model->AddConv("conv2", kLatentChannels, kLatentChannels, 1);
  model->AddConv("decoder.conv1", kMiddle, kLatentChannels, 3);
  model->AddBlock("decoder.middle.0", kMiddle, kMiddle);
  model->Add("decoder.middle.1.norm.gamma", DType::kF32, {kMiddle}, 0.9f, 1.1f);
  model->AddConv("decoder.middle.1.to_qkv", 3 * kMiddle, kMiddle, 1);
  model->AddConv("decoder.middle.1.proj", kMiddle, kMiddle, 1);
  model->AddBlock("decoder.middle.2", kMiddle, kMiddle);
  const int64_t widths[] = {1024, 1024, 512, 256};
  int64_t in = kMiddle;
  for (int stage = 0; stage < 4; ++stage) {
    const std::string prefix = absl::StrCat("decoder.upsamples.", stage, ".upsamples.");
    for (int block = 0; block < 3; ++block) {
      model->AddBlock(absl::StrCat(prefix, block), in, widths[stage]);
      in = widths[stage];
    }
    if (stage < 3) model->AddConv(prefix + "3.resample.1", in, in, 3);
  }
  model->Add("decoder.head.0.gamma", DType::kF32, {in}, 0.9f, 1.1f);
  model->AddConv("decoder.head.2", 12, in, 3);
  return model;
}

std::unique_ptr<RandomModel> RandomModel::VaeEncoder() {
  auto model = std::make_unique<RandomModel>();
  model->AddConv("encoder.conv1", 160, 12, 3);
  const int64_t widths[] = {160, 320, 640, 640};
  int64_t in = widths[0];
  for (int stage = 0; stage < 4; ++stage) {
    const std::string prefix = absl::StrCat("encoder.downsamples.", stage, ".downsamples.");
    for (int block = 0; block < 2; ++block) {
      model->AddBlock(absl::StrCat(prefix, block), in, widths[stage]);
      in = widths[stage];
    }
    if (stage < 3) model->AddConv(prefix + "2.resample.1", in, in, 3);
  }
  model->AddBlock("encoder.middle.0", in, in);
  model->Add("encoder.middle.1.norm.gamma", DType::kF32, {in}, 0.9f, 1.1f);
  model->AddConv("encoder.middle.1.to_qkv", 3 * in, in, 1);
  model->AddConv("encoder.middle.1.proj", in, in, 1);
  model->AddBlock("encoder.middle.2", in, in);
  model->Add("encoder.head.0.gamma", DType::kF32, {in}, 0.9f, 1.1f);
  model->AddConv("encoder.head.2", 2 * kLatentChannels, in, 3);
  model->AddConv("conv1", 2 * kLatentChannels, 2 * kLatentChannels, 1);
  return model;
}

std::unique_ptr<RandomModel> RandomModel::VisionTower(const VisionConfig& config) {
  auto model = std::make_unique<RandomModel>();
  for (const VisionTensor& tensor : VisionTensors(config)) {
    if (FirstLayer(tensor.name) != tensor.name) continue;
    const bool norm = tensor.shape.size() == 1 && absl::EndsWith(tensor.name, ".weight");
    const int64_t inputs = NumElements(tensor.shape) / tensor.shape[0];
    const float spread = tensor.shape.size() == 1 ? 0.1f : 1.7f / std::sqrt(static_cast<float>(inputs));
    model->Add(tensor.name, DType::kBf16, tensor.shape, norm ? 0.9f : -spread, norm ? 1.1f : spread);
  }
  return model;
}

bool RandomModel::Contains(absl::string_view name) const { return tensors_.contains(FirstLayer(name)); }

absl::StatusOr<TensorView> RandomModel::Get(absl::string_view name) const {
  const auto it = tensors_.find(FirstLayer(name));
  if (it == tensors_.end())
    return absl::NotFoundError(absl::StrCat("no tensor ", name, " among the random weights"));
  return it->second.view;
}

}  // namespace lancet
