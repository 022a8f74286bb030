// Time embeddings of latents on a device.
#pragma once

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "common/bf16.h"
#include "kernels/cuda/cuda_context.h"
#include "kernels/cuda/device_array.h"
#include "worker/cuda/cuda_trunk_weights.h"

namespace lancet {

// Row i is time2(silu(time0(TimeFeatures(times[i])))): [times, hidden]. Waits until now + timeout. A row
// depends on its time alone.
absl::StatusOr<DeviceArray<bf16>> EmbedTimes(const CudaContext& ctx, const CudaTrunkWeights& weights,
                                             absl::Span<const float> times, absl::Duration timeout);

}  // namespace lancet
