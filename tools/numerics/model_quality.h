// What a mode of the Linears does to pictures and answers of a whole model.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/bf16.h"
#include "common/checkpoint.h"
#include "common/rgb_image.h"
#include "tools/numerics/expected_requests.h"
#include "worker/engine/engine.h"
#include "worker/engine/engine_trace.h"

namespace lancet {

// An engine of one rank with its collective.
class LoneEngine {
 public:
  static absl::StatusOr<std::unique_ptr<LoneEngine>> Load(const Checkpoint& checkpoint,
                                                          const EngineOptions& options);
  // Executes the whole plan. `trace` may be null.
  absl::StatusOr<std::vector<WorkResult>> Run(const RequestPlan& plan, EngineTrace* trace);

 private:
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Collective> collective_;
};

struct ModelOutputs {
  struct Drawn {
    RgbImage image;
    std::vector<bf16> latents;  // after the last step
  };
  std::vector<Drawn> pictures, edits;
  std::vector<std::string> answers;
};

absl::StatusOr<ModelOutputs> RunExpected(LoneEngine& engine, const ExpectedRequests& requests);

// A line for `name`: likeness to the ideal pictures and to `reference`, answers that are right and that are
// the reference's.
std::string QualityHeader();
std::string QualityLine(const std::string& name, const ModelOutputs& outputs, const ModelOutputs& reference,
                        const ExpectedRequests& requests);

}  // namespace lancet
