#include "common/model_config.h"

#include <cmath>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/json_fields.h"
#include "common/status_macros.h"

namespace lancet {
namespace {

using nlohmann::json;

absl::Status ReadRope(const JsonFields& root, ModelConfig& config) {
  LANCET_ASSIGN_OR_RETURN(config.rope_theta, root.Number("rope_theta", 1.0, 1e12, config.rope_theta));
  if (const json* scaling = root.Find("rope_scaling"); scaling != nullptr) {
    if (!scaling->is_object()) return root.Error("rope_scaling", "is not an object");
    const JsonFields rope(*scaling, absl::StrCat(root.where(), ": rope_scaling"));
    for (const char* key : {"type", "rope_type"}) {
      // "default" is how newer tools write the same thing.
      const json* type = rope.Find(key);
      if (type != nullptr && *type != "mrope" && *type != "default") {
        return rope.Error(key, "is not 'mrope', the only kind that is known");
      }
    }
    if (const json* section = rope.Find("mrope_section"); section != nullptr) {
      if (!section->is_array() || section->size() != config.mrope_section.size()) {
        return rope.Error("mrope_section", "is not a list of 3 integers");
      }
      for (size_t axis = 0; axis < config.mrope_section.size(); ++axis) {
        LANCET_ASSIGN_OR_RETURN(const int64_t size,
                                rope.CheckInt((*section)[axis], "mrope_section", 0, config.head_dim));
        config.mrope_section[axis] = static_cast<int>(size);
      }
    }
  }
  const int sum = config.mrope_section[0] + config.mrope_section[1] + config.mrope_section[2];
  if (sum * 2 != config.head_dim) {
    return root.Error("rope_scaling.mrope_section",
                      absl::StrCat("sums to ", sum, "; expected half of the head size ", config.head_dim));
  }
  return absl::OkStatus();
}

absl::Status ReadTokenIds(const JsonFields& root, ModelConfig& config) {
  struct Field {
    const char* key;
    int32_t ModelConfig::*member;
  };
  for (const Field& field : {Field{"vision_start_token_id", &ModelConfig::vision_start_token_id},
                             Field{"vision_end_token_id", &ModelConfig::vision_end_token_id},
                             Field{"video_token_id", &ModelConfig::video_token_id},
                             Field{"eos_token_id", &ModelConfig::eos_token_id}}) {
    LANCET_ASSIGN_OR_RETURN(const int64_t id, root.Int(field.key, 0, config.vocab_size - 1));
    config.*field.member = static_cast<int32_t>(id);
  }
  LANCET_ASSIGN_OR_RETURN(const int64_t bos, root.Int("bos_token_id", 0, config.vocab_size - 1, 0));
  config.bos_token_id = static_cast<int32_t>(bos);
  return absl::OkStatus();
}

absl::Status ReadHeads(const JsonFields& root, ModelConfig& config) {
  LANCET_ASSIGN_OR_RETURN(config.num_heads, root.Int("num_attention_heads", 1, 1024));
  LANCET_ASSIGN_OR_RETURN(config.num_kv_heads,
                          root.Int("num_key_value_heads", 1, config.num_heads, config.num_heads));
  if (config.num_heads % config.num_kv_heads != 0) {
    return root.Error("num_key_value_heads",
                      absl::StrCat("is ", config.num_kv_heads, "; expected a divisor of ", config.num_heads,
                                   " (num_attention_heads)"));
  }
  if (root.Find("head_dim") == nullptr && config.hidden_size % config.num_heads != 0) {
    return root.Error("num_attention_heads", absl::StrCat("is ", config.num_heads, "; expected a divisor of ",
                                                          config.hidden_size, " (hidden_size)"));
  }
  LANCET_ASSIGN_OR_RETURN(config.head_dim,
                          root.Int("head_dim", 2, 1024, config.hidden_size / config.num_heads));
  if (config.head_dim < 2 || config.head_dim > 1024 || config.head_dim % 2 != 0) {
    return root.Error("head_dim",
                      absl::StrCat("is ", config.head_dim, "; expected an even number, 2 to 1024"));
  }
  // The output projection's rows are cut into NVFP4 blocks, and ranks own whole heads.
  if (config.head_dim % kNvfp4Block != 0) {
    return root.Error("head_dim",
                      absl::StrCat("is ", config.head_dim, "; expected a multiple of ", kNvfp4Block));
  }
  return absl::OkStatus();
}

absl::Status CheckUnsupported(const JsonFields& root) {
  if (const json* act = root.Find("hidden_act"); act != nullptr && *act != "silu") {
    return root.Error("hidden_act", "is not 'silu', the only one that is known");
  }
  if (const json* sliding = root.Find("use_sliding_window"); sliding != nullptr && *sliding != false) {
    return root.Error("use_sliding_window", "is set, but only full attention is known");
  }
  return absl::OkStatus();
}

absl::StatusOr<CardSize> ReadSize(const JsonFields& reader, const json& value, absl::string_view key) {
  // Far beyond what any group can draw; admission has the real limit.
  constexpr int64_t kMaxSide = 65536;
  if (!value.is_array() || value.size() != 2) return reader.Error(key, "is not a pair [width, height]");
  LANCET_ASSIGN_OR_RETURN(const int64_t width, reader.CheckInt(value[0], key, kPixelsPerLatent, kMaxSide));
  LANCET_ASSIGN_OR_RETURN(const int64_t height, reader.CheckInt(value[1], key, kPixelsPerLatent, kMaxSide));
  if (width % kPixelsPerLatent != 0 || height % kPixelsPerLatent != 0) {
    return reader.Error(
        key, absl::StrCat("is ", width, "x", height, "; expected multiples of ", kPixelsPerLatent));
  }
  return CardSize{static_cast<int32_t>(width), static_cast<int32_t>(height)};
}

// A list of `count` numbers into `out`.
absl::Status ReadFloats(const JsonFields& reader, const json& value, absl::string_view key, size_t count,
                        float* out) {
  constexpr double kMaxCoefficient = 1e4;
  if (!value.is_array() || value.size() != count) {
    return reader.Error(key, absl::StrCat("is not a list of ", count, " numbers"));
  }
  for (size_t i = 0; i < count; ++i) {
    LANCET_ASSIGN_OR_RETURN(const double number,
                            reader.CheckNumber(value[i], key, -kMaxCoefficient, kMaxCoefficient));
    out[i] = static_cast<float>(number);
  }
  return absl::OkStatus();
}

absl::StatusOr<LatentRgb> ReadLatentRgb(const json& value, const std::string& source_name) {
  const JsonFields reader(value, absl::StrCat(source_name, ": latent_rgb"));
  LatentRgb rgb;
  const json* weight = reader.Find("weight");
  const json* bias = reader.Find("bias");
  if (weight == nullptr || !weight->is_array() || weight->size() != rgb.weight.size()) {
    return reader.Error("weight", "is not a list of 3 rows");
  }
  for (size_t c = 0; c < rgb.weight.size(); ++c) {
    LANCET_RETURN_IF_ERROR(ReadFloats(reader, (*weight)[c], "weight", kLatentChannels, rgb.weight[c].data()));
  }
  if (bias == nullptr) return reader.Error("bias", "is missing");
  LANCET_RETURN_IF_ERROR(ReadFloats(reader, *bias, "bias", rgb.bias.size(), rgb.bias.data()));
  return rgb;
}

}  // namespace

absl::StatusOr<ModelConfig> ParseModelConfig(const std::string& json_text, const std::string& source_name) {
  LANCET_ASSIGN_OR_RETURN(const json value, ParseConfigObject(json_text, source_name));
  const JsonFields root(value, source_name);
  LANCET_RETURN_IF_ERROR(CheckUnsupported(root));
  ModelConfig config;
  // Upper limits keep products of sizes far inside int64; the published models are at 2048, 36, 11008,
  // 151936.
  LANCET_ASSIGN_OR_RETURN(config.hidden_size, root.Int("hidden_size", kNvfp4Block, 1 << 17));
  LANCET_ASSIGN_OR_RETURN(config.num_layers, root.Int("num_hidden_layers", 1, 1024));
  LANCET_ASSIGN_OR_RETURN(config.intermediate_size, root.Int("intermediate_size", kNvfp4Block, 1 << 20));
  LANCET_ASSIGN_OR_RETURN(config.vocab_size, root.Int("vocab_size", 1, 1 << 24));
  for (const auto& [key, size] : {std::pair("hidden_size", config.hidden_size),
                                  std::pair("intermediate_size", config.intermediate_size)}) {
    if (size % kNvfp4Block != 0) {
      return root.Error(key, absl::StrCat("is ", size, "; expected a multiple of ", kNvfp4Block));
    }
  }
  LANCET_RETURN_IF_ERROR(ReadHeads(root, config));
  LANCET_ASSIGN_OR_RETURN(const double eps, root.Number("rms_norm_eps", 1e-12, 1.0, config.rms_norm_eps));
  config.rms_norm_eps = static_cast<float>(eps);
  LANCET_RETURN_IF_ERROR(ReadRope(root, config));
  LANCET_RETURN_IF_ERROR(ReadTokenIds(root, config));
  return config;
}

absl::StatusOr<ModelCard> ParseModelCard(const std::string& json_text, const std::string& source_name) {
  constexpr size_t kMaxNameBytes = 200;
  constexpr size_t kMaxSizes = 1000;
  LANCET_ASSIGN_OR_RETURN(const json value, ParseConfigObject(json_text, source_name));
  const JsonFields root(value, source_name);
  ModelCard card;
  if (const json* name = root.Find("name"); name != nullptr) {
    if (!name->is_string() || name->get_ref<const std::string&>().size() > kMaxNameBytes) {
      return root.Error("name", absl::StrCat("is not a string of at most ", kMaxNameBytes, " bytes"));
    }
    card.name = name->get_ref<const std::string&>();
  }
  if (const json* sizes = root.Find("sizes"); sizes != nullptr) {
    if (!sizes->is_array() || sizes->size() > kMaxSizes) {
      return root.Error("sizes", absl::StrCat("is not a list of at most ", kMaxSizes, " pairs"));
    }
    for (const json& size : *sizes) {
      LANCET_ASSIGN_OR_RETURN(const CardSize parsed, ReadSize(root, size, "sizes"));
      card.sizes.push_back(parsed);
    }
    if (!card.sizes.empty()) card.default_size = card.sizes.front();
  }
  if (const json* size = root.Find("default_size"); size != nullptr) {
    LANCET_ASSIGN_OR_RETURN(card.default_size, ReadSize(root, *size, "default_size"));
  }
  if (const json* rgb = root.Find("latent_rgb"); rgb != nullptr) {
    if (!rgb->is_object()) return root.Error("latent_rgb", "is not an object");
    LANCET_ASSIGN_OR_RETURN(card.latent_rgb, ReadLatentRgb(*rgb, source_name));
  }
  return card;
}

}  // namespace lancet
