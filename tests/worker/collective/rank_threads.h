// Runs the ranks of a group as threads of the test.
#pragma once

#include <functional>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "worker/collective/shm_collective.h"

namespace lancet {

using Group = std::vector<std::unique_ptr<ShmCollective>>;

inline Group MakeGroup(int world_size, size_t capacity_floats) {
  absl::StatusOr<Group> group = ShmCollective::CreateGroupInProcess(world_size, capacity_floats);
  return group.ok() ? *std::move(group) : Group();
}

// Calls body(collective) for every rank at once and returns when all have returned.
inline void RunRanks(const Group& group, const std::function<void(ShmCollective&)>& body) {
  std::vector<std::thread> threads;
  for (const std::unique_ptr<ShmCollective>& collective : group) {
    threads.emplace_back([&body, &collective] { body(*collective); });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

// Far enough for any correct run on a busy machine under a sanitizer.
inline absl::Time Soon() { return absl::Now() + absl::Seconds(60); }

// Rank `rank`'s made-up value `i`: signs and magnitudes such that another order of summation gives other
// bits.
inline float PartialValue(int rank, size_t i) {
  const uint32_t hash = (static_cast<uint32_t>(i) * 8 + rank + 1) * 2654435761u;
  const float mantissa = 1.0f + static_cast<float>(hash & 0x7fffff) * 0x1p-23f;
  return ((hash >> 31) != 0 ? -mantissa : mantissa) * ((hash & 0x40000000) != 0 ? 0x1p3f : 0x1p-3f);
}

// The sum over ranks 0, 1, ... in this order.
inline float ExpectedSum(int world_size, size_t i) {
  float sum = PartialValue(0, i);
  for (int rank = 1; rank < world_size; ++rank) {
    sum += PartialValue(rank, i);
  }
  return sum;
}

}  // namespace lancet
