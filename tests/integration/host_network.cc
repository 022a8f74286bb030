#include "tests/integration/host_network.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <optional>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "common/status_macros.h"
#include "tests/integration/process.h"

namespace lancet {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(20);

// The path of iproute2's program, or empty.
std::string IpProgram() {
  for (const char* path : {"/sbin/ip", "/usr/sbin/ip", "/bin/ip", "/usr/bin/ip"}) {
    if (access(path, X_OK) == 0) return path;
  }
  return "";
}

absl::Status RunToItsEnd(const std::vector<std::string>& arguments, const std::string& log) {
  LANCET_ASSIGN_OR_RETURN(const std::unique_ptr<Process> process, Process::Start(arguments, log));
  const std::optional<ProcessEnd> end = process->AwaitEnd(kPatience);
  if (end.has_value() && end->exit_code == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("'", absl::StrJoin(arguments, " "), "' failed, see ", log));
}

}  // namespace

HostNetwork::HostNetwork(int hosts, std::string log)
    : hosts_(hosts), log_(std::move(log)), prefix_(absl::StrCat("lc", getpid())), net_(prefix_ + "net") {}

absl::StatusOr<std::unique_ptr<HostNetwork>> HostNetwork::Create(int hosts, const std::string& log) {
  if (geteuid() != 0) return absl::UnimplementedError("only root may make network namespaces");
  if (IpProgram().empty()) return absl::UnimplementedError("the program ip is missing");
  std::unique_ptr<HostNetwork> network(new HostNetwork(hosts, log));
  absl::Status built = network->Build();
  for (int host = 0; host < hosts && built.ok(); ++host) built = network->Try(host);
  if (!built.ok()) return absl::UnimplementedError(built.message());
  return network;
}

HostNetwork::~HostNetwork() {
  // Links go with the namespace of one of their ends.
  for (const std::string& name : namespaces_) Ip({"netns", "delete", name}).IgnoreError();
}

std::string HostNetwork::Address(int number) const {
  // From the block for benchmarks between networks, which no real network uses; tests at the same time have
  // others.
  return absl::StrCat("198.18.", getpid() % 256, ".", number + 1);
}

std::string HostNetwork::Namespace(int host) const { return absl::StrCat(prefix_, "h", host); }

absl::Status HostNetwork::Ip(const std::vector<std::string>& arguments) {
  std::vector<std::string> command = {IpProgram()};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return RunToItsEnd(command, log_);
}

absl::Status HostNetwork::Build() {
  LANCET_RETURN_IF_ERROR(Ip({"netns", "add", net_}));
  namespaces_.push_back(net_);
  LANCET_RETURN_IF_ERROR(Ip({"-n", net_, "link", "add", "br0", "type", "bridge"}));
  LANCET_RETURN_IF_ERROR(Ip({"-n", net_, "link", "set", "br0", "up"}));
  LANCET_RETURN_IF_ERROR(
      Ip({"link", "add", prefix_, "type", "veth", "peer", "name", "outside", "netns", net_}));
  LANCET_RETURN_IF_ERROR(Ip({"-n", net_, "link", "set", "outside", "master", "br0", "up"}));
  LANCET_RETURN_IF_ERROR(Ip({"address", "add", Address(0) + "/24", "dev", prefix_}));
  LANCET_RETURN_IF_ERROR(Ip({"link", "set", prefix_, "up"}));
  for (int host = 0; host < hosts_; ++host) {
    const std::string name = Namespace(host);
    const std::string port = absl::StrCat("v", host);
    LANCET_RETURN_IF_ERROR(Ip({"netns", "add", name}));
    namespaces_.push_back(name);
    LANCET_RETURN_IF_ERROR(
        Ip({"-n", net_, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name}));
    LANCET_RETURN_IF_ERROR(Ip({"-n", net_, "link", "set", port, "master", "br0", "up"}));
    LANCET_RETURN_IF_ERROR(Ip({"-n", name, "address", "add", address(host) + "/24", "dev", "eth0"}));
    LANCET_RETURN_IF_ERROR(Ip({"-n", name, "link", "set", "lo", "up"}));
    LANCET_RETURN_IF_ERROR(Ip({"-n", name, "link", "set", "eth0", "up"}));
  }
  return absl::OkStatus();
}

absl::Status HostNetwork::Try(int host) {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (listener < 0) return absl::UnknownError("no socket");
  const absl::Cleanup close_listener = [listener] { close(listener); };
  sockaddr_in own{};
  own.sin_family = AF_INET;
  inet_pton(AF_INET, gateway().c_str(), &own.sin_addr);
  socklen_t size = sizeof(own);
  if (bind(listener, reinterpret_cast<sockaddr*>(&own), size) != 0 || listen(listener, 1) != 0 ||
      getsockname(listener, reinterpret_cast<sockaddr*>(&own), &size) != 0) {
    return absl::UnknownError(absl::StrCat("cannot listen on ", gateway()));
  }
  const std::string connect = absl::StrCat("exec 3<>/dev/tcp/", gateway(), "/", ntohs(own.sin_port));
  return RunToItsEnd(OnHost(host, {"/usr/bin/timeout", "10", "/bin/bash", "-c", connect}), log_);
}

std::vector<std::string> HostNetwork::OnHost(int host, const std::vector<std::string>& arguments) const {
  std::vector<std::string> command = {IpProgram(), "netns", "exec", Namespace(host)};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return command;
}

absl::Status HostNetwork::SetLink(int host, bool up) {
  return Ip({"-n", Namespace(host), "link", "set", "eth0", up ? "up" : "down"});
}

}  // namespace lancet
