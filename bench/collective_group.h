// The collectives of a group whose ranks are threads of this process, which take the same path as processes
// do.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/collective/collective.h"

namespace lancet {

using CollectiveGroup = std::vector<std::unique_ptr<Collective>>;  // by rank

// Over shared memory; over TCP on the loopback interface. `capacity_floats` is the largest AllReduceSum.
absl::StatusOr<CollectiveGroup> MakeShmGroup(int world_size, size_t capacity_floats);
absl::StatusOr<CollectiveGroup> MakeTcpGroup(int world_size, size_t capacity_floats);

}  // namespace lancet
