// Notices that the process of a peer rank has ended.
#pragma once

#include <cstdint>
#include <vector>

namespace lancet {

// A process, as another process of the host can find it.
struct ProcessId {
  int32_t pid = 0;
  uint64_t pid_namespace =
      0;  // inode of /proc/self/ns/pid, 0 if unknown: a pid means nothing in another namespace

  static ProcessId Self();
};

// Looks at the processes of the peers, through a pidfd each where the kernel gives one (a pidfd can't be
// fooled by a reused pid), through kill(pid, 0) where it does not. Ranks that are threads of this process
// count as alive; so does a process in another pid namespace, which can't be seen from here: there only the
// deadline helps. Not thread-safe.
class PeerWatch {
 public:
  explicit PeerWatch(int world_size);
  ~PeerWatch();
  PeerWatch(const PeerWatch&) = delete;
  PeerWatch& operator=(const PeerWatch&) = delete;

  // From now on rank `rank` is watched; again for the same rank does nothing.
  void Watch(int rank, const ProcessId& process);
  bool watches(int rank) const { return peers_[rank].how != How::kUnknown; }
  // Whether the rank's process has ended; false for ranks that are not watched.
  bool Ended(int rank);

 private:
  enum class How { kUnknown, kAlwaysAlive, kPidfd, kSignal, kEnded };
  struct Peer {
    How how = How::kUnknown;
    int pidfd = -1;
    int32_t pid = 0;
  };

  std::vector<Peer> peers_;
};

}  // namespace lancet
