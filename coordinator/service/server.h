// The coordinator's two gRPC servers: the public port for clients, the worker port for ranks.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/group/rank_link.h"
#include "coordinator/service/image_service.h"
#include "coordinator/service/readiness.h"
#include "rpc/tls.h"

namespace grpc {
class Server;
class Service;
}  // namespace grpc

namespace lancet {

class CoordinatorServer {
 public:
  struct Options {
    // "host:port"; port 0 takes a free one.
    std::string listen = "127.0.0.1:50051";
    std::string worker_listen = "127.0.0.1:50052";
    int max_request_bytes = 1 << 20;       // of one message on the public port
    int max_streams_per_connection = 100;  // on the public port
    // A connection is asked to end at this age and cut off when it is as old again. It bounds calls that
    // never send their message.
    absl::Duration max_connection_age = absl::Hours(2);
    // What connections of the public port may hold; beyond it no new ones are taken and idle ones end.
    int64_t max_transport_bytes = int64_t{1} << 30;
    // Without certificate: not encrypted.
    TlsFiles tls;
    TlsFiles worker_tls;
    // What ranks prove to know; empty: nothing.
    std::string worker_secret;
    // Called when a rank is turned away for a wrong proof; from any thread.
    std::function<void()> on_rank_refused;
    // grpc.reflection and channelz on the public port: they answer without a token.
    bool introspection = true;
    ServiceOptions services;
    RankLinkHandler* ranks = nullptr;  // outlives the server
    Readiness* readiness = nullptr;    // outlives the server
  };

  // Both servers listen when it returns. Unavailable names an address that cannot be listened on,
  // InvalidArgument a file of certificates.
  static absl::StatusOr<std::unique_ptr<CoordinatorServer>> Create(Options options);
  // Shutdown at once.
  ~CoordinatorServer();

  int public_port() const { return public_port_; }
  int worker_port() const { return worker_port_; }

  // Takes no new connections, lets calls end until `grace` is over, breaks off the rest. The ranks' streams
  // are broken off after that. Idempotent.
  void Shutdown(absl::Duration grace);

 private:
  CoordinatorServer();

  Readiness* readiness_ = nullptr;
  // The servers refer to the services, so they go first.
  std::unique_ptr<grpc::Service> image_service_;
  std::unique_ptr<grpc::Service> text_service_;
  std::unique_ptr<grpc::Service> admin_service_;
  std::unique_ptr<grpc::Service> worker_service_;
  std::unique_ptr<grpc::Server> public_server_;
  std::unique_ptr<grpc::Server> worker_server_;
  int public_port_ = 0;
  int worker_port_ = 0;
};

// Writes the numbers, one space between them, and a newline to a file that appears whole or not at all.
absl::Status WritePortFile(const std::string& path, const std::vector<int>& ports);

}  // namespace lancet
