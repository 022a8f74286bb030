#include "worker/collective/tcp_mesh.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <optional>
#include <string_view>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/status_macros.h"
#include "worker/collective/tcp_address.h"

namespace lancet {
namespace {

constexpr uint64_t kMagic = 0x5043547465636e4cULL;  // "LncetTCP"
constexpr uint32_t kVersion = 1;
constexpr int kTickMs = 20;
constexpr std::chrono::milliseconds kRedial{50};
// Strangers may hold this many connections without a word, for so long.
constexpr size_t kMaxPending = 2 * kTcpMaxRanks;
constexpr absl::Duration kPendingTimeout = absl::Seconds(5);
// A peer whose host is cut off: unacknowledged data, or silence that probes don't break, ends the connection.
constexpr int kUserTimeoutMs = 10000;
constexpr int kKeepIdleSeconds = 5;
constexpr int kKeepIntervalSeconds = 2;
constexpr int kKeepProbes = 3;

using Nonce = std::array<uint8_t, 16>;
using Mac = std::array<uint8_t, 32>;

// All hosts of a group run one binary on one architecture, so structs travel as they are.
struct Hello {
  uint64_t magic = kMagic;
  uint32_t version = kVersion;
  int32_t rank = 0;
  uint64_t epoch = 0;
  uint64_t capacity_floats = 0;
  int32_t world_size = 0;
  uint32_t reserved = 0;  // no padding
  Nonce nonce{};
};
static_assert(sizeof(Hello) == 56);
struct Reply {
  Nonce nonce{};
  Mac mac{};
};
struct Proof {
  Mac mac{};
};

Mac Sign(const std::string& key, std::string_view role, const Hello& hello, const Nonce& nonce) {
  std::string text(role);
  text.append(reinterpret_cast<const char*>(&hello), sizeof(hello));
  text.append(reinterpret_cast<const char*>(nonce.data()), nonce.size());
  Mac mac{};
  unsigned int size = 0;
  HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), reinterpret_cast<const uint8_t*>(text.data()),
       text.size(), mac.data(), &size);
  return mac;
}

bool Same(const Mac& a, const Mac& b) { return CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0; }

bool FillRandom(Nonce& nonce) { return RAND_bytes(nonce.data(), static_cast<int>(nonce.size())) == 1; }

void SetSocketOptions(int fd) {
  const auto set = [fd](int level, int name, int value) {
    // A kernel that lacks one of these only notices a cut network later.
    static_cast<void>(setsockopt(fd, level, name, &value, sizeof(value)));
  };
  set(IPPROTO_TCP, TCP_NODELAY, 1);
  set(IPPROTO_TCP, TCP_USER_TIMEOUT, kUserTimeoutMs);
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, kKeepIdleSeconds);
  set(IPPROTO_TCP, TCP_KEEPINTVL, kKeepIntervalSeconds);
  set(IPPROTO_TCP, TCP_KEEPCNT, kKeepProbes);
}

// The bytes of a struct that arrive in pieces.
template <typename T>
class Incoming {
 public:
  // True once all of it is there, false if more is needed; nothing if the connection is over.
  std::optional<bool> Read(int fd) {
    while (have_ < sizeof(T)) {
      const ssize_t n = recv(fd, reinterpret_cast<char*>(&value_) + have_, sizeof(T) - have_, MSG_DONTWAIT);
      if (n > 0) {
        have_ += static_cast<size_t>(n);
      } else if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return false;
      } else {
        return std::nullopt;
      }
    }
    return true;
  }
  const T& value() const { return value_; }

 private:
  T value_{};
  size_t have_ = 0;
};

// Handshakes are far smaller than a fresh socket's buffer.
template <typename T>
bool WriteWhole(int fd, const T& value) {
  return send(fd, &value, sizeof(value), MSG_NOSIGNAL | MSG_DONTWAIT) == static_cast<ssize_t>(sizeof(value));
}

class MeshBuilder {
 public:
  explicit MeshBuilder(const TcpMeshOptions& options)
      : options_(options), world_size_(static_cast<int>(options.addresses.size())), sockets_(world_size_) {}

  absl::StatusOr<std::vector<FileDescriptor>> Build() {
    // In ascending order, and nobody accepts before it has dialled: rank 0 always accepts, so rank 1 gets
    // through, and so on.
    for (int peer = 0; peer < options_.rank; ++peer) LANCET_RETURN_IF_ERROR(Dial(peer));
    LANCET_RETURN_IF_ERROR(AcceptAll());
    return std::move(sockets_);
  }

 private:
  // An accepted connection that has not yet proved itself.
  struct Pending {
    FileDescriptor fd;
    absl::Time since;
    Incoming<Hello> hello;
    Nonce nonce{};
    bool replied = false;
    Incoming<Proof> proof;
  };

  absl::Status CheckTime(int missing) const {
    if (options_.cancelled != nullptr && options_.cancelled()) {
      return absl::CancelledError(
          absl::StrCat("rank ", options_.rank, " was cancelled while the group formed"));
    }
    if (absl::Now() >= options_.deadline) {
      return absl::DeadlineExceededError(absl::StrCat("rank ", missing, " at ", options_.addresses[missing],
                                                      " did not come to form the group with rank ",
                                                      options_.rank, " before the deadline"));
    }
    return absl::OkStatus();
  }

  // Waits a tick at most for the socket. False if nothing happened.
  static bool WaitTick(int fd, int16_t events) {
    pollfd waited{fd, events, 0};
    return poll(&waited, 1, kTickMs) > 0;
  }

  // One attempt: a connected socket, an invalid one if the peer is not there yet, or the end of time.
  absl::StatusOr<FileDescriptor> TryConnect(int peer, const TcpAddress& address) {
    FileDescriptor fd(socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd.valid()) return absl::ResourceExhaustedError(absl::StrCat("socket: ", std::strerror(errno)));
    SetSocketOptions(fd.get());
    if (connect(fd.get(), address.get(), address.length) == 0) return fd;
    if (errno != EINPROGRESS) return FileDescriptor();
    while (!WaitTick(fd.get(), POLLOUT)) LANCET_RETURN_IF_ERROR(CheckTime(peer));
    int error = 0;
    socklen_t size = sizeof(error);
    getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &size);
    return error == 0 ? std::move(fd) : FileDescriptor();
  }

  Hello MakeHello() const {
    Hello hello;
    hello.rank = options_.rank;
    hello.epoch = options_.epoch;
    hello.capacity_floats = options_.capacity_floats;
    hello.world_size = world_size_;
    return hello;
  }

  absl::Status Dial(int peer) {
    LANCET_ASSIGN_OR_RETURN(const TcpAddress address, ResolveTcpAddress(options_.addresses[peer]));
    while (true) {
      LANCET_RETURN_IF_ERROR(CheckTime(peer));
      LANCET_ASSIGN_OR_RETURN(FileDescriptor fd, TryConnect(peer, address));
      if (fd.valid()) {
        LANCET_ASSIGN_OR_RETURN(const bool welcome, Introduce(peer, fd.get()));
        if (welcome) {
          sockets_[peer] = std::move(fd);
          return absl::OkStatus();
        }
      }
      // The peer is still in another epoch, or starting.
      std::this_thread::sleep_for(kRedial);
    }
  }

  // False if the peer hung up; PermissionDenied if whoever answers does not know the key.
  absl::StatusOr<bool> Introduce(int peer, int fd) {
    Hello hello = MakeHello();
    if (!FillRandom(hello.nonce)) return absl::InternalError("no random numbers");
    if (!WriteWhole(fd, hello)) return false;
    Incoming<Reply> reply;
    while (true) {
      const std::optional<bool> complete = reply.Read(fd);
      if (!complete.has_value()) return false;
      if (*complete) break;
      if (!WaitTick(fd, POLLIN)) LANCET_RETURN_IF_ERROR(CheckTime(peer));
    }
    if (!Same(reply.value().mac, Sign(options_.key, "accept", hello, reply.value().nonce))) {
      return absl::PermissionDeniedError(absl::StrCat("whoever answers at ", options_.addresses[peer],
                                                      " is not rank ", peer, " of epoch ", options_.epoch));
    }
    return WriteWhole(fd, Proof{Sign(options_.key, "dial", hello, reply.value().nonce)});
  }

  int FirstMissing() const {
    for (int rank = options_.rank + 1; rank < world_size_; ++rank) {
      if (!sockets_[rank].valid()) return rank;
    }
    return world_size_;
  }

  absl::Status AcceptAll() {
    std::vector<Pending> pending;
    while (FirstMissing() < world_size_) {
      LANCET_RETURN_IF_ERROR(CheckTime(FirstMissing()));
      std::vector<pollfd> waited = {{options_.listener->fd(), POLLIN, 0}};
      for (const Pending& p : pending) waited.push_back({p.fd.get(), POLLIN, 0});
      poll(waited.data(), waited.size(), kTickMs);
      std::vector<Pending> still;
      for (Pending& p : pending) {
        LANCET_ASSIGN_OR_RETURN(const bool keep, Advance(p));
        if (keep && absl::Now() - p.since < kPendingTimeout) still.push_back(std::move(p));
      }
      pending = std::move(still);
      while (pending.size() < kMaxPending) {
        FileDescriptor fd(accept4(options_.listener->fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
        if (!fd.valid()) break;
        SetSocketOptions(fd.get());
        Pending p;
        p.fd = std::move(fd);
        p.since = absl::Now();
        if (!FillRandom(p.nonce)) return absl::InternalError("no random numbers");
        pending.push_back(std::move(p));
      }
    }
    return absl::OkStatus();
  }

  // False if the connection is done with: it has become a socket of the mesh, or it was turned away.
  absl::StatusOr<bool> Advance(Pending& p) {
    if (!p.replied) {
      const std::optional<bool> complete = p.hello.Read(p.fd.get());
      if (!complete.has_value()) return false;
      if (!*complete) return true;
      const Hello& hello = p.hello.value();
      const bool ours = hello.magic == kMagic && hello.version == kVersion && hello.epoch == options_.epoch &&
                        hello.world_size == world_size_ && hello.rank > options_.rank &&
                        hello.rank < world_size_ && !sockets_[hello.rank].valid();
      if (!ours || !WriteWhole(p.fd.get(), Reply{p.nonce, Sign(options_.key, "accept", hello, p.nonce)})) {
        return false;
      }
      p.replied = true;
    }
    const std::optional<bool> complete = p.proof.Read(p.fd.get());
    if (!complete.has_value()) return false;
    if (!*complete) return true;
    const Hello& hello = p.hello.value();
    if (!Same(p.proof.value().mac, Sign(options_.key, "dial", hello, p.nonce)) ||
        sockets_[hello.rank].valid()) {
      return false;
    }
    if (hello.capacity_floats != options_.capacity_floats) {
      return absl::FailedPreconditionError(absl::StrCat("rank ", hello.rank, " has a capacity of ",
                                                        hello.capacity_floats, " floats, rank ",
                                                        options_.rank, " of ", options_.capacity_floats));
    }
    sockets_[hello.rank] = std::move(p.fd);
    return false;
  }

  const TcpMeshOptions& options_;
  const int world_size_;
  std::vector<FileDescriptor> sockets_;
};

}  // namespace

absl::StatusOr<std::vector<FileDescriptor>> ConnectTcpMesh(const TcpMeshOptions& options) {
  const size_t world_size = options.addresses.size();
  if (world_size < 2 || world_size > kTcpMaxRanks) {
    return absl::InvalidArgumentError(
        absl::StrCat(world_size, " addresses; a mesh has 2 to ", kTcpMaxRanks, " ranks"));
  }
  if (options.rank < 0 || options.rank >= static_cast<int>(world_size)) {
    return absl::InvalidArgumentError(
        absl::StrCat("rank ", options.rank, " is outside [0, ", world_size, ")"));
  }
  if (options.key.size() < kTcpMinKeyBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the epoch's key has ", options.key.size(), " bytes; at least ", kTcpMinKeyBytes));
  }
  if (options.listener == nullptr) return absl::InvalidArgumentError("no listener");
  return MeshBuilder(options).Build();
}

}  // namespace lancet
