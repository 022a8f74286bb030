// What is done to the processes of a cluster, drawn from a seed.
#pragma once

#include <cstdint>
#include <map>
#include <random>
#include <string>

#include "absl/status/status.h"
#include "tests/integration/cluster.h"

namespace lancet {

class ChaosFaults {
 public:
  // `cluster` outlives this.
  ChaosFaults(Cluster* cluster, uint64_t seed) : cluster_(cluster), random_(seed) {}

  // One fault and what mends it: a rank is killed and started again, stopped for a while and let go on, cut
  // off from the coordinator for a while, told to leave and started again; a whole group or the coordinator
  // is killed and started again. Returns when all processes run.
  absl::Status Next();
  // What Next did last, to whom.
  const std::string& last() const { return last_; }

  // By name.
  const std::map<std::string, int>& counts() const { return counts_; }

 private:
  absl::Status Kill(int worker);
  absl::Status KillGroup(int worker);
  absl::Status Leave(int worker);
  void Hang(int worker);
  absl::Status CutOff(int worker);
  absl::Status KillCoordinator();
  // A random time up to so much.
  void Wait(absl::Duration most);

  Cluster* const cluster_;
  std::mt19937_64 random_;
  void Note(const std::string& name, int worker);

  std::map<std::string, int> counts_;
  std::string last_;
};

}  // namespace lancet
