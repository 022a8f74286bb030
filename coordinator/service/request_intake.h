// From the bytes of a request message to a request for the dispatcher: parsed, admitted, its picture
// prepared, its plan made.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "common/request_plan.h"
#include "coordinator/dispatch/dispatcher_core.h"
#include "coordinator/request/admission.h"
#include "coordinator/request/tokenizer.h"
#include "coordinator/service/api_convert.h"

namespace lancet {

// Make the plan of an admitted request; InvalidArgument names what is wrong with its texts. Thread-safe.
struct Planners {
  std::function<absl::StatusOr<RequestPlan>(uint64_t id, const GenerateParams& params)> generate;
  std::function<absl::StatusOr<RequestPlan>(uint64_t id, const EditParams& params, RgbImage vision,
                                            RgbImage condition)>
      edit;
  std::function<absl::StatusOr<RequestPlan>(uint64_t id, const DescribeParams& params, RgbImage vision)>
      describe;
};

struct IntakeOptions {
  ModelInfo info;
  Planners planners;
  const Tokenizer* tokenizer = nullptr;  // of answers; outlives every request
  // For the seed of a request that names none. Thread-safe.
  std::function<uint64_t()> random;
};

// Thread-safe. `wire` is a message of the request's kind; arrival, deadline and stream of the result are not
// set.
absl::StatusOr<NewRequest> IntakeGenerate(const IntakeOptions& options, const std::string& wire, uint64_t id);
// These decode a picture: see image_input.h for where to run them.
absl::StatusOr<NewRequest> IntakeEdit(const IntakeOptions& options, const std::string& wire, uint64_t id);
absl::StatusOr<NewRequest> IntakeDescribe(const IntakeOptions& options, const std::string& wire, uint64_t id);

}  // namespace lancet
