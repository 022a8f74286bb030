// A window into a running engine, for comparison with goldens and for fitting previews. Called on the
// engine's thread; the views end with the call. Values that every rank holds in full are reported by every
// rank. Each function does nothing unless it is overridden.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "common/bf16.h"
#include "common/tensor_view.h"
#include "worker/loader/device_shapes.h"

namespace lancet {

class EngineTrace {
 public:
  virtual ~EngineTrace() = default;

  // Start noise [num_latents, 48] to use instead of the seed's; empty: the seed's. Asked at Admit.
  virtual std::optional<std::vector<bf16>> StartNoise(uint64_t /*request_id*/) { return std::nullopt; }
  // The cache of the last layer after the prefix, this rank's key/value heads: [tokens, kv heads * head_dim].
  virtual void OnCache(uint64_t /*request_id*/, bool /*conditional*/, ConstMatrixView<bf16> /*keys*/,
                       ConstMatrixView<bf16> /*values*/) {}
  // Velocity [num_latents, 48] of one branch of a step, before guidance.
  virtual void OnVelocity(uint64_t /*request_id*/, int32_t /*step*/, bool /*conditional*/,
                          ConstMatrixView<bf16> /*velocity*/) {}
  // What the vision tower made of vision_image: [tokens, hidden].
  virtual void OnFeatures(uint64_t /*request_id*/, ConstMatrixView<bf16> /*features*/) {}
  // Latents [h * w, 48] of condition_image.
  virtual void OnConditionLatents(uint64_t /*request_id*/, ConstMatrixView<bf16> /*latents*/) {}
  // This rank's part of the logits from which token `index` of the answer is picked: of the ids from first_id
  // on.
  virtual void OnLogits(uint64_t /*request_id*/, int32_t /*index*/, int64_t /*first_id*/,
                        absl::Span<const bf16> /*logits*/) {}
  // What goes into a fused Linear of the rank, on the CPU: rows of one expert, of any requests, in pieces.
  virtual void OnLinearInput(int64_t /*layer*/, bool /*gen*/, FusedLinear /*linear*/,
                             ConstMatrixView<bf16> /*x*/) {}
  // Latents [num_latents, 48] after `steps_done` steps; 0 is the start noise.
  virtual void OnLatents(uint64_t /*request_id*/, int32_t /*steps_done*/, ConstMatrixView<bf16> /*latents*/) {
  }
};

}  // namespace lancet
