// What a plan costs on a rank, from its shape alone: rows of a packed pass, tokens of cache. Coordinator and
// ranks count alike, so that what the scheduler lets through fits.
#pragma once

#include <cstdint>

#include "common/request_plan.h"

namespace lancet {

// How the keys and values of a request lie in memory. While both caches would hold the same they are stored
// once (`shared`); from the first block that belongs to one of them alone, each has its own.
struct CacheLayout {
  bool guided = false;      // there is an unconditional cache
  int32_t fork_block = 0;   // the first prefix block behind the shared part; the number of blocks if none
  int64_t shared = 0;       // tokens
  int64_t conditional = 0;  // tokens behind the shared part, answer included
  int64_t unconditional = 0;

  int64_t tokens() const { return shared + conditional + unconditional; }
};

// Whether some step may need the unconditional velocity.
bool UsesGuidance(const SamplerParams& sampler);

CacheLayout MakeCacheLayout(const RequestPlan& plan);

// Rows that one piece of work adds to a packed pass, at most; 0 for work outside the trunk. `work` belongs to
// `plan` and its index is within it.
int64_t PassRows(const RequestPlan& plan, const CacheLayout& layout, const Work& work);

}  // namespace lancet
