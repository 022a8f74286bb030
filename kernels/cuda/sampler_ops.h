// The sampler's arithmetic on the device: guidance with global renormalisation, the Euler step, the choice of
// a token. Rounds as worker/engine/denoise.h does.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "common/bf16.h"

namespace lancet::cuda {

inline constexpr int kNormBlocks = 64;

// What changes from step to step of one picture. On the device, so that a captured graph serves every step.
struct StepScalars {
  int32_t step = 0;  // row of the picture's time embeddings
  float t = 0;       // where the step starts
  float next_t = 0;  // where it ends
  float dt = 0;      // t - next_t
  // Of the second-order solver.
  float keep = 0;
  float share = 0;
  float previous_share = 0;
};

// velocity = bf16(w * bf16(min(1, |velocity| / |w|))), w = u + scale (velocity - u), every operation rounded
// to bf16; norms over all n values, summed in f64 in a fixed order. `scratch`: 2 * kNormBlocks doubles.
cudaError_t ApplyGuidance(float scale, const bf16* unconditional, int64_t n, bf16* velocity, double* scratch,
                          cudaStream_t stream);

// latents = bf16(latents - bf16(velocity * bf16(dt))). scalars: device.
cudaError_t EulerStep(const bf16* velocity, const StepScalars* scalars, int64_t n, bf16* latents,
                      cudaStream_t stream);

// A step of the second-order solver (worker/engine/denoise.h): latents = bf16(keep * latents + share * D +
// previous_share * *clean), D = latents - t * velocity, f32; then *clean = D. `clean` is not read if
// previous_share is 0. scalars: device.
cudaError_t MultistepStep(const bf16* velocity, const StepScalars* scalars, int64_t n, float* clean,
                          bf16* latents, cudaStream_t stream);

// clean = latents - t * velocity, f32: the estimate that previews show, of latents at time t.
cudaError_t EstimateClean(const bf16* latents, const bf16* velocity, float t, int64_t n, float* clean,
                          cudaStream_t stream);

inline constexpr int kArgmaxBlocks = 64;

// ids[i] = index of the largest of the first `limit` logits of row i, the lowest index of equals. logits:
// [rows, vocabulary]; `scratch`: rows * kArgmaxBlocks pairs. NaN counts as smallest. values[i], if not null:
// that logit.
struct ArgmaxPair {
  float value;
  int32_t index;
};
cudaError_t Argmax(const bf16* logits, int64_t rows, int64_t vocabulary, int64_t limit, ArgmaxPair* scratch,
                   int32_t* ids, cudaStream_t stream, float* values = nullptr);

}  // namespace lancet::cuda
