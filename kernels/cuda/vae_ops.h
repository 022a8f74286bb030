// The steps of the autoencoder's decoder between its convolutions, on bf16 maps [height, width, channels].
// Arithmetic is f32, results are rounded once; kernels/vae_ops.h says what each computes. Channels are
// multiples of 8 except where said.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "common/bf16.h"

namespace lancet::cuda {

// z = bf16(bf16(latent / inv_std) + mean). latents: [n, channels] f32; inv_std, mean: [channels].
cudaError_t DenormaliseLatents(const float* latents, const float* inv_std, const float* mean, int64_t n,
                               int64_t channels, bf16* z, cudaStream_t stream);

// bf16 -> f32.
cudaError_t WidenRows(const bf16* x, int64_t n, float* y, cudaStream_t stream);

// Per pixel y = act(x / max(|x|, 1e-12) sqrt(channels) gamma), act SiLU or nothing. At most 2048 channels.
cudaError_t ChannelNorm(const bf16* x, const float* gamma, int64_t pixels, int64_t channels, bool silu,
                        bf16* y, cudaStream_t stream);

// Nearest-neighbour x2. x: [height, width, channels], y: [2 height, 2 width, channels].
cudaError_t Upsample(const bf16* x, int64_t height, int64_t width, int64_t channels, bf16* y,
                     cudaStream_t stream);

// The stage shortcut added to y [2 height, 2 width, out]. x: [height, width, in].
cudaError_t DupUpAdd(const bf16* x, int64_t height, int64_t width, int64_t in, int64_t out,
                     int64_t frame_factor, bf16* y, cudaStream_t stream);

// Depth to space: x [height, width, 12] -> planes [3, 2 height, 2 width] f32, clamped to [-1, 1] if asked.
cudaError_t Unpatchify(const bf16* x, int64_t height, int64_t width, bool clamp, float* planes,
                       cudaStream_t stream);

// planes [3, height, width] -> rgb [height, width, 3], rounded half to even; NaN becomes 0.
cudaError_t PlanesToRgb(const float* planes, int64_t height, int64_t width, uint8_t* rgb,
                        cudaStream_t stream);

// probabilities = bf16(softmax(scale * scores)) by rows. [rows, cols], rows of both `stride` apart; columns
// from cols on become 0.
cudaError_t SoftmaxRows(const float* scores, float scale, int64_t rows, int64_t cols, int64_t stride,
                        bf16* probabilities, cudaStream_t stream);

// y [cols, rows] = x^T; rows of x lie x_stride apart, rows of y y_stride.
cudaError_t Transpose(const bf16* x, int64_t x_stride, int64_t rows, int64_t cols, bf16* y, int64_t y_stride,
                      cudaStream_t stream);

}  // namespace lancet::cuda
