// The requests in a model's folder `expected`: pictures to draw, edits, questions, with what is right.
//   prompts.json    [{"prompt", "picture": file of the ideal picture}, ...]
//   edits.json      [{"instruction", "source", "picture"}, ...]
//   questions.json  [{"question", "picture", "right_answer"}, ...]
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/checkpoint.h"
#include "common/request_plan.h"
#include "common/rgb_image.h"
#include "coordinator/request/plan_builder.h"

namespace lancet {

struct ExpectedRequest {
  RequestPlan plan;
  RgbImage picture;    // of a request that draws
  std::string answer;  // of a question
};

struct ExpectedRequests {
  std::unique_ptr<PlanBuilder> builder;
  std::vector<ExpectedRequest> pictures, edits, questions;
};

// At most `most` of each kind; `steps` of the pictures. InvalidArgument or NotFound
// name the file.
absl::StatusOr<ExpectedRequests> LoadExpectedRequests(const Checkpoint& checkpoint, const std::string& folder,
                                                      size_t most, int32_t steps);

}  // namespace lancet
