#include "coordinator/service/server.h"

#include <grpcpp/ext/channelz_service_plugin.h>
#include <grpcpp/ext/health_check_service_server_builder_option.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/impl/service_type.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/status_macros.h"
#include "coordinator/service/admin_service.h"
#include "coordinator/service/worker_service.h"
#include "protos/convert.h"

namespace lancet {
namespace {

void SetCommonArguments(grpc::ServerBuilder& builder) {
  // A second coordinator on the same port is an error, not a silent sharer.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  // A peer whose host vanished is noticed within 40 s; a peer that pings more often than every 10 s is cut
  // off.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 30000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10000);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 2);
  // Names and values of a call together; calls with more end with RESOURCE_EXHAUSTED.
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, 8 << 10);
}

absl::StatusOr<std::unique_ptr<grpc::Server>> Start(grpc::ServerBuilder& builder, const std::string& address,
                                                    const TlsFiles& tls, int& port) {
  std::shared_ptr<grpc::ServerCredentials> credentials = grpc::InsecureServerCredentials();
  if (!tls.cert.empty()) {
    LANCET_ASSIGN_OR_RETURN(credentials, MakeTlsServerCredentials(tls));
  }
  builder.AddListeningPort(address, credentials, &port);
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr || port == 0) {
    return absl::UnavailableError(absl::StrCat("cannot listen on '", address, "'"));
  }
  return server;
}

}  // namespace

absl::StatusOr<std::unique_ptr<CoordinatorServer>> CoordinatorServer::Create(Options options) {
  std::unique_ptr<CoordinatorServer> server(new CoordinatorServer());
  server->image_service_ = MakeImageService(options.services);
  server->text_service_ = MakeTextService(options.services);
  server->admin_service_ = MakeAdminService(options.services, options.services.clock->Now());
  server->worker_service_ = MakeWorkerService({.handler = options.ranks,
                                               .secret = options.worker_secret,
                                               .random = options.services.intake.random,
                                               .on_refused = options.on_rank_refused});
  // Plugins apply to every server that is built after them, so the worker port comes first and has none.
  {
    grpc::ServerBuilder builder;
    SetCommonArguments(builder);
    builder.SetMaxReceiveMessageSize(kMaxWorkerMessageBytes);
    builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, 16);
    builder.SetOption(std::make_unique<grpc::HealthCheckServiceServerBuilderOption>(nullptr));
    builder.RegisterService(server->worker_service_.get());
    auto started = Start(builder, options.worker_listen, options.worker_tls, server->worker_port_);
    if (!started.ok()) return started.status();
    server->worker_server_ = *std::move(started);
  }
  grpc::EnableDefaultHealthCheckService(true);
  if (options.introspection) {
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    grpc::channelz::experimental::InitChannelzService();
  }
  {
    grpc::ServerBuilder builder;
    SetCommonArguments(builder);
    builder.SetMaxReceiveMessageSize(options.max_request_bytes);
    builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, options.max_streams_per_connection);
    const int age_ms = static_cast<int>(absl::ToInt64Milliseconds(options.max_connection_age));
    builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS, age_ms);
    builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS, age_ms);
    builder.SetResourceQuota(
        grpc::ResourceQuota("public").Resize(static_cast<size_t>(options.max_transport_bytes)));
    builder.RegisterService(server->image_service_.get());
    builder.RegisterService(server->text_service_.get());
    builder.RegisterService(server->admin_service_.get());
    auto started = Start(builder, options.listen, options.tls, server->public_port_);
    if (!started.ok()) return started.status();
    server->public_server_ = *std::move(started);
    server->readiness_ = options.readiness;
    server->readiness_->Attach(server->public_server_->GetHealthCheckService());
  }
  return server;
}

CoordinatorServer::CoordinatorServer() = default;

CoordinatorServer::~CoordinatorServer() { Shutdown(absl::ZeroDuration()); }

void CoordinatorServer::Shutdown(absl::Duration grace) {
  if (readiness_ != nullptr) std::exchange(readiness_, nullptr)->Detach();
  if (public_server_ != nullptr) {
    public_server_->Shutdown(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(grace));
    public_server_.reset();
  }
  if (worker_server_ != nullptr) {
    worker_server_->Shutdown(std::chrono::system_clock::now());
    worker_server_.reset();
  }
}

absl::Status WritePortFile(const std::string& path, const std::vector<int>& ports) {
  const std::string temporary = absl::StrCat(path, ".new");
  {
    std::ofstream file(temporary);
    file << absl::StrJoin(ports, " ") << '\n';
    file.close();
    if (!file) return absl::UnavailableError(absl::StrCat("cannot write port file '", temporary, "'"));
  }
  if (std::rename(temporary.c_str(), path.c_str()) != 0) {
    return absl::UnavailableError(absl::StrCat("cannot rename '", temporary, "' to '", path, "'"));
  }
  return absl::OkStatus();
}

}  // namespace lancet
