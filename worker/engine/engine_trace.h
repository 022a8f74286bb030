// A window into a running engine, for comparison with goldens and for fitting previews. Called on the
// engine's thread; the views end with the call. Values that every rank holds in full are reported by every
// rank.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "common/bf16.h"
#include "common/tensor_view.h"

namespace lancet {

class EngineTrace {
 public:
  virtual ~EngineTrace() = default;

  // Start noise [num_latents, 48] to use instead of the seed's; empty: the seed's. Asked at Admit.
  virtual std::optional<std::vector<bf16>> StartNoise(uint64_t request_id) = 0;
  // The cache of the last layer after the prefix, this rank's key/value heads: [tokens, kv heads * head_dim].
  virtual void OnCache(uint64_t request_id, bool conditional, ConstMatrixView<bf16> keys,
                       ConstMatrixView<bf16> values) = 0;
  // Velocity [num_latents, 48] of one branch of a step, before guidance.
  virtual void OnVelocity(uint64_t request_id, int32_t step, bool conditional,
                          ConstMatrixView<bf16> velocity) = 0;
  // Latents [num_latents, 48] after `steps_done` steps; 0 is the start noise.
  virtual void OnLatents(uint64_t request_id, int32_t steps_done, ConstMatrixView<bf16> latents) = 0;
};

}  // namespace lancet
