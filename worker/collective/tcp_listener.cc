#include "worker/collective/tcp_listener.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "worker/collective/tcp_address.h"

namespace lancet {
namespace {

// Ranks of a group at most dial at once; strangers are turned away by the handshake.
constexpr int kBacklog = 128;

bool MeansEveryInterface(const TcpAddress& address) {
  if (address.family() == AF_INET) {
    return reinterpret_cast<const sockaddr_in*>(&address.storage)->sin_addr.s_addr == INADDR_ANY;
  }
  const in6_addr& any = in6addr_any;
  return std::memcmp(&reinterpret_cast<const sockaddr_in6*>(&address.storage)->sin6_addr, &any,
                     sizeof(any)) == 0;
}

}  // namespace

absl::StatusOr<std::unique_ptr<TcpListener>> TcpListener::Create(const std::string& host_port) {
  LANCET_ASSIGN_OR_RETURN(TcpAddress address, ResolveTcpAddress(host_port));
  if (MeansEveryInterface(address)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "'", host_port, "' means every interface; name the one by which the other hosts reach this one"));
  }
  FileDescriptor fd(socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid() || bind(fd.get(), address.get(), address.length) != 0 || listen(fd.get(), kBacklog) != 0) {
    return absl::UnavailableError(absl::StrCat("cannot listen on '", host_port, "': ", std::strerror(errno)));
  }
  address.length = sizeof(address.storage);
  if (getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address.storage), &address.length) != 0) {
    return absl::InternalError(absl::StrCat("getsockname: ", std::strerror(errno)));
  }
  return absl::WrapUnique(new TcpListener(std::move(fd), FormatTcpAddress(address)));
}

}  // namespace lancet
