// Architecture numbers and token ids of a Lance checkpoint. Read once from llm_config.json (and, for what
// that file does not say, from the model's published constants), validated once, immutable after. Nothing
// assumes the 3B sizes.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace lancet {

// Channels of a VAE latent, and pixels per latent in either direction.
inline constexpr int kLatentChannels = 48;
inline constexpr int kPixelsPerLatent = 16;
// Inputs per NVFP4 block.
inline constexpr int kNvfp4Block = 16;

struct ModelConfig {
  int64_t hidden_size = 0;
  int64_t num_layers = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;           // hidden_size / num_heads unless the file says otherwise
  int64_t intermediate_size = 0;  // multiple of 16
  int64_t vocab_size = 0;         // rows of the embedding table
  float rms_norm_eps = 1e-6f;
  double rope_theta = 1e6;
  std::array<int, 3> mrope_section = {16, 24, 24};  // frequencies per axis t, h, w; they sum to head_dim / 2
  int64_t max_latent_side = 64;                     // of the latent position table
  int32_t vision_start_token_id = 0;
  int32_t vision_end_token_id = 0;
  int32_t video_token_id = 0;  // the placeholder of every latent and ViT token
  int32_t eos_token_id = 0;    // <|im_end|>
  int32_t bos_token_id = 0;    // as the file says; unused by the model
};

// Reads and checks llm_config.json. InvalidArgument names key, value and limit.
absl::StatusOr<ModelConfig> ParseModelConfig(const std::string& json_text, const std::string& source_name);

struct CardSize {
  int32_t width = 0;
  int32_t height = 0;
  friend bool operator==(const CardSize&, const CardSize&) = default;
};

// Colour of a latent: rgb = bias + weight * z, z the 48 normalised channels, rgb in [-1, 1].
struct LatentRgb {
  std::array<std::array<float, kLatentChannels>, 3> weight{};  // [r g b][channel]
  std::array<float, 3> bias{};
};

// What lancet.json beside a checkpoint says; every field is optional there.
//   {"name": "...", "default_size": [w, h], "sizes": [[w, h], ...],
//    "latent_rgb": {"weight": [[48 numbers] x 3], "bias": [r, g, b]}}
struct ModelCard {
  std::string name;
  CardSize default_size{768, 768};
  std::vector<CardSize> sizes;  // empty: any
  std::optional<LatentRgb> latent_rgb;
};

absl::StatusOr<ModelCard> ParseModelCard(const std::string& json_text, const std::string& source_name);

}  // namespace lancet
