// Noise of a request, from its seed.
#pragma once

#include <vector>

#include "common/bf16.h"
#include "common/request_plan.h"

namespace lancet {

// Start noise of the target, [num_latents, 48]. The reference draws the condition's rows first, in the same
// call.
std::vector<bf16> SeedNoise(const RequestPlan& plan);

// Noise for drawing the condition's latents from the autoencoder's posterior, [h * w, 48]: the seed's second
// draw, behind the target's. Empty unless plan.sample_condition.
std::vector<float> ConditionNoise(const RequestPlan& plan);

}  // namespace lancet
