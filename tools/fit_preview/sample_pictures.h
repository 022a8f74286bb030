// Latents as the sampler leaves them, and the colours that the decoder makes of them: what a preview map is
// fitted to.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/checkpoint.h"
#include "common/model_config.h"
#include "common/tensor_view.h"
#include "kernels/kernel_context.h"
#include "worker/model/vae/vae_decoder.h"

namespace lancet {

struct SampleOptions {
  std::vector<std::string> prompts;
  CardSize size;
  int32_t num_steps = 30;
  int threads = 1;
};

// Rows of several pictures, one after another.
struct LatentColours {
  std::vector<float> latents;  // [rows, 48]
  std::vector<float> colours;  // [rows, 3]: means of the pixels of a latent

  int64_t rows() const { return static_cast<int64_t>(colours.size()) / 3; }
  ConstMatrixView<float> latents_view() const { return {latents.data(), rows(), kLatentChannels}; }
  ConstMatrixView<float> colours_view() const { return {colours.data(), rows(), 3}; }
  void Append(const LatentColours& other);
};

// Draws each prompt (seed 42 + its index). Three pictures from each: the finished latents, and the estimates
// of them after a third and two thirds of the steps, which is what previews show. `progress` hears the index
// of each prompt before it is drawn. One entry per prompt.
absl::StatusOr<std::vector<LatentColours>> SamplePictures(const Checkpoint& checkpoint,
                                                          const SampleOptions& options,
                                                          const KernelContext& ctx, VaeDecoder& decoder,
                                                          const std::function<void(size_t)>& progress);

}  // namespace lancet
