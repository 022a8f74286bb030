#include "bench/collective_group.h"

#include <string>
#include <thread>
#include <utility>

#include "absl/time/clock.h"
#include "common/status_macros.h"
#include "worker/collective/shm_collective.h"
#include "worker/collective/tcp_collective.h"
#include "worker/collective/tcp_listener.h"

namespace lancet {

absl::StatusOr<CollectiveGroup> MakeShmGroup(int world_size, size_t capacity_floats) {
  absl::StatusOr<std::vector<std::unique_ptr<ShmCollective>>> made =
      ShmCollective::CreateGroupInProcess(world_size, capacity_floats);
  if (!made.ok()) return made.status();
  CollectiveGroup group;
  for (std::unique_ptr<ShmCollective>& collective : *made) group.push_back(std::move(collective));
  return group;
}

absl::StatusOr<CollectiveGroup> MakeTcpGroup(int world_size, size_t capacity_floats) {
  std::vector<std::unique_ptr<TcpListener>> listeners;
  TcpMeshOptions options;
  options.key = "the benchmark's own key";
  options.capacity_floats = capacity_floats;
  options.deadline = absl::Now() + absl::Minutes(1);
  for (int rank = 0; rank < world_size; ++rank) {
    LANCET_ASSIGN_OR_RETURN(std::unique_ptr<TcpListener> listener, TcpListener::Create("127.0.0.1:0"));
    options.addresses.push_back(listener->address());
    listeners.push_back(std::move(listener));
  }
  std::vector<absl::StatusOr<std::unique_ptr<TcpCollective>>> made;
  for (int rank = 0; rank < world_size; ++rank) made.emplace_back(absl::UnknownError("not connected"));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < world_size; ++rank) {
    threads.emplace_back([&, rank, mine = options]() mutable {
      mine.rank = rank;
      mine.listener = listeners[rank].get();
      made[rank] = TcpCollective::Create(mine);
    });
  }
  for (std::thread& thread : threads) thread.join();
  CollectiveGroup group;
  for (absl::StatusOr<std::unique_ptr<TcpCollective>>& collective : made) {
    if (!collective.ok()) return collective.status();
    group.push_back(*std::move(collective));
  }
  return group;
}

}  // namespace lancet
