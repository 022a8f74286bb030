// The plan of an end-to-end case, made as the coordinator makes it for a client.
#pragma once

#include "absl/status/statusor.h"
#include "common/request_plan.h"
#include "nlohmann/json.hpp"
#include "tools/golden/golden_runs.h"

namespace lancet {

// `golden`: the case's JSON. Tasks t2i, image_edit and x2t_image; the picture is <case>.source.png.
absl::StatusOr<RequestPlan> BuildGoldenPlan(const GoldenContext& context, const std::string& case_name,
                                            const nlohmann::json& golden);

// The sampler of a case.
SamplerParams GoldenSampler(const nlohmann::json& golden);

// Adds the row of token ids, placeholders and all.
absl::Status CompareTokenIds(const GoldenContext& context, const std::string& case_name,
                             const nlohmann::json& golden, const RequestPlan& plan);

}  // namespace lancet
