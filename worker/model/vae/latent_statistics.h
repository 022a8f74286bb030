// Mean and scale of the 48 latent channels of the Wan2.2 autoencoder: constants of the model, in no file.
#pragma once

#include <array>

#include "common/model_config.h"

namespace lancet {

// As the reference holds them: bf16(mean) and bf16(1 / bf16(std)), exact in f32.
struct LatentStatistics {
  std::array<float, kLatentChannels> mean{};
  std::array<float, kLatentChannels> inv_std{};
};

LatentStatistics WanLatentStatistics();

}  // namespace lancet
