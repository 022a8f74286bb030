// The sampler: timestep schedule, classifier-free guidance with global renormalisation, Euler steps. Latents
// stay bf16 and every operation rounds as in the reference.
#pragma once

#include <cstdint>
#include <vector>

#include "common/bf16.h"
#include "common/request_plan.h"
#include "common/tensor_view.h"

namespace lancet {

// Times of n steps: t[0] = 1 > ... > t[n] = 0, t = S s / (1 + (S - 1) s) for evenly spaced s and shift S;
// f32. Step i goes from t[i] to t[i + 1].
std::vector<float> TimestepSchedule(int32_t num_steps, float timestep_shift);

// Whether a step that starts at time t needs the unconditional velocity.
bool IsGuided(const SamplerParams& sampler, float t);

// velocity = w * min(1, |velocity| / |w|), w = unconditional + scale * (velocity - unconditional), norms over
// all values. Both [n, 48]; velocity is replaced. Returns the factor.
float ApplyGuidance(float guidance_scale, ConstMatrixView<bf16> unconditional, MatrixView<bf16> velocity);

// latents -= velocity * dt.
void EulerStep(ConstMatrixView<bf16> velocity, float dt, MatrixView<bf16> latents);

// The estimate of the clean latents from latents at time t: latents - t * velocity, f32 [n, 48].
std::vector<float> EstimateClean(ConstMatrixView<bf16> latents, ConstMatrixView<bf16> velocity, float t);

}  // namespace lancet
