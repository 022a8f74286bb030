#include "tests/integration/relay.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace lancet {
namespace {

// Between two looks at what a test wants.
constexpr int kTickMs = 5;

sockaddr_in Loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

void NoDelay(int fd) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Relay>> Relay::Start(int target_port) {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = Loopback(0);
  socklen_t size = sizeof(address);
  if (listener < 0 || bind(listener, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      listen(listener, 16) != 0 || getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    const int error = errno;
    if (listener >= 0) close(listener);
    return absl::UnavailableError(absl::StrCat("relay: ", strerror(error)));
  }
  return std::unique_ptr<Relay>(new Relay(listener, ntohs(address.sin_port), target_port));
}

Relay::Relay(int listener, int port, int target_port)
    : listener_(listener), port_(port), target_port_(target_port), thread_([this] { Run(); }) {}

Relay::~Relay() {
  stop_ = true;
  thread_.join();
  for (const Pair& pair : pairs_) {
    for (const int fd : pair.ends) close(fd);
  }
  close(listener_);
}

void Relay::Run() {
  while (!stop_) {
    if (cut_) {
      poll(nullptr, 0, kTickMs);
      continue;
    }
    std::vector<pollfd> fds = {{.fd = listener_, .events = POLLIN, .revents = 0}};
    for (const Pair& pair : pairs_) {
      for (const int fd : pair.ends) fds.push_back({.fd = fd, .events = POLLIN, .revents = 0});
    }
    if (poll(fds.data(), fds.size(), kTickMs) <= 0 || cut_) continue;
    const size_t known = pairs_.size();
    if (fds[0].revents != 0) Accept();
    for (size_t p = known; p-- > 0;) {
      bool open = true;
      for (int end = 0; end < 2; ++end) {
        if (fds[1 + 2 * p + end].revents == 0) continue;
        open = open && Pass(pairs_[p].ends[end], pairs_[p].ends[1 - end]);
      }
      if (open) continue;
      for (const int fd : pairs_[p].ends) close(fd);
      pairs_.erase(pairs_.begin() + static_cast<int64_t>(p));
    }
  }
}

void Relay::Accept() {
  Pair pair;
  pair.ends[0] = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
  if (pair.ends[0] < 0) return;
  pair.ends[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const sockaddr_in address = Loopback(target_port_);
  if (pair.ends[1] < 0 ||
      connect(pair.ends[1], reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    close(pair.ends[0]);
    if (pair.ends[1] >= 0) close(pair.ends[1]);
    return;
  }
  for (const int fd : pair.ends) NoDelay(fd);
  pairs_.push_back(pair);
}

bool Relay::Pass(int from, int to) {
  char buffer[1 << 16];
  const ssize_t got = recv(from, buffer, sizeof(buffer), MSG_DONTWAIT);
  if (got < 0) return errno == EAGAIN || errno == EINTR;
  if (got == 0) return false;
  for (ssize_t sent = 0; sent < got;) {
    const ssize_t more = send(to, buffer + sent, static_cast<size_t>(got - sent), MSG_NOSIGNAL);
    if (more <= 0) return false;
    sent += more;
  }
  return true;
}

}  // namespace lancet
