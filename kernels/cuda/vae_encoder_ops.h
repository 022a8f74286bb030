// The steps of the autoencoder's encoder between its convolutions, on bf16 maps [height, width, channels];
// what both halves use is in vae_ops.h. Arithmetic is f32, results are rounded once; kernels/vae_ops.h says
// what each computes.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "common/bf16.h"

namespace lancet::cuda {

// Channels of a map of 2 x 2 patches: 12, and zeros up to whole 16-byte vectors.
inline constexpr int64_t kPatchChannels = 16;

// 8 bits -> planes [3, pixels] in [-1, 1]: (x / 255 - 1/2) / (1/2). rgb: [pixels, 3].
cudaError_t RgbToPlanes(const uint8_t* rgb, int64_t pixels, float* planes, cudaStream_t stream);

// Space to depth: planes [3, 2 height, 2 width] -> y [height, width, kPatchChannels].
cudaError_t Patchify(const float* planes, int64_t height, int64_t width, bf16* y, cudaStream_t stream);

// The shortcut of a stage that halves both sides. x: [2 height, 2 width, in], y: [height, width, out].
cudaError_t AvgDown(const bf16* x, int64_t height, int64_t width, int64_t in, int64_t out,
                    int64_t frame_factor, bf16* y, cudaStream_t stream);

// One row and one column of zeros at the bottom and the right. x: [height, width, channels], y: [height + 1,
// width + 1, channels]; channels a multiple of 8.
cudaError_t PadAfter(const bf16* x, int64_t height, int64_t width, int64_t channels, bf16* y,
                     cudaStream_t stream);

// y += x over n values, a multiple of 8.
cudaError_t AddMap(const bf16* x, int64_t n, bf16* y, cudaStream_t stream);

// latents = bf16(bf16(bf16(mu - mean) inv_std) + noise exp(log_variance / 2)), the noise not scaled by
// inv_std.
//   moments: [n, 2 channels], mu first   mean, inv_std: [channels]
//   noise: [n, channels] standard normal numbers, or null for none   latents: [n, channels]
cudaError_t NormaliseLatents(const bf16* moments, const float* mean, const float* inv_std, const float* noise,
                             int64_t n, int64_t channels, bf16* latents, cudaStream_t stream);

}  // namespace lancet::cuda
