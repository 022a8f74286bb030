// Requests that no golden has, run on a device and on the CPU: odd shapes, random prompts and pictures.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "tools/golden/golden_runs.h"

namespace lancet {

// Draws `count` requests of all three tasks from `seed`, with sides that are any multiples of 16 (28 for the
// vision tower) and any shape, runs each on context.engines and on `cpu`, and adds a row per quantity: the
// distance of the two runs, in units of sqrt(2) times the reference's bf16 error of that quantity in the
// folder's first golden of the task, whose sampler is used. (Two bf16 runs err apart.) NotFound if the folder
// has no golden of a task.
absl::Status RunAgainstCpu(const GoldenContext& context, RankGroup& cpu, int count, uint64_t seed);

}  // namespace lancet
