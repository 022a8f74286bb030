// Mean and scale of the 48 latent channels of the Wan2.2 autoencoder: constants of the model, in no file. And
// the checks of options that its two halves share.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "common/model_config.h"

namespace lancet {

// As the reference holds them: bf16(mean) and bf16(1 / bf16(std)), exact in f32.
struct LatentStatistics {
  std::array<float, kLatentChannels> mean{};
  std::array<float, kLatentChannels> inv_std{};
};

LatentStatistics WanLatentStatistics();

// Puts Wan2.2's numbers where there are none. InvalidArgument, beginning with `path`, unless each list then
// has one number per channel of the file.
absl::Status CompleteLatentStatistics(absl::string_view path, size_t channels, std::vector<float>& mean,
                                      std::vector<float>& inv_std);

// InvalidArgument unless max_latents is from 1 to 2^20: 16384 x 16384 pixels, which keeps sizes far from
// overflow.
absl::Status CheckMaxLatents(int64_t max_latents);

}  // namespace lancet
