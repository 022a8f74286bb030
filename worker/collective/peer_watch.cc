#include "worker/collective/peer_watch.h"

#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace lancet {

ProcessId ProcessId::Self() {
  ProcessId self;
  self.pid = getpid();
  struct stat info = {};
  if (stat("/proc/self/ns/pid", &info) == 0) {
    self.pid_namespace = info.st_ino;
  }
  return self;
}

PeerWatch::PeerWatch(int world_size) : peers_(world_size) {}

PeerWatch::~PeerWatch() {
  for (const Peer& peer : peers_) {
    if (peer.pidfd >= 0) {
      close(peer.pidfd);
    }
  }
}

void PeerWatch::Watch(int rank, const ProcessId& process) {
  Peer& peer = peers_[rank];
  if (peer.how != How::kUnknown) {
    return;
  }
  peer.pid = process.pid;
  const ProcessId self = ProcessId::Self();
  if (process.pid_namespace != self.pid_namespace || process.pid == self.pid) {
    peer.how = How::kAlwaysAlive;
    return;
  }
  // A pidfd is close-on-exec by itself.
  peer.pidfd = static_cast<int>(syscall(SYS_pidfd_open, process.pid, 0));
  if (peer.pidfd >= 0) {
    peer.how = How::kPidfd;
  } else if (errno == ESRCH) {
    peer.how = How::kEnded;
  } else {
    // ENOSYS on an old kernel, EPERM under some seccomp filters, EMFILE.
    peer.how = How::kSignal;
  }
}

bool PeerWatch::Ended(int rank) {
  Peer& peer = peers_[rank];
  switch (peer.how) {
    case How::kUnknown:
    case How::kAlwaysAlive:
      return false;
    case How::kEnded:
      return true;
    case How::kPidfd: {
      pollfd entry = {peer.pidfd, POLLIN, 0};
      if (poll(&entry, 1, 0) == 1 && (entry.revents & POLLIN) != 0) {
        peer.how = How::kEnded;
      }
      break;
    }
    case How::kSignal:
      // EPERM means that somebody is there.
      if (kill(peer.pid, 0) != 0 && errno == ESRCH) {
        peer.how = How::kEnded;
      }
      break;
  }
  return peer.how == How::kEnded;
}

}  // namespace lancet
