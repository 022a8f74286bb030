#include "client/status_client.h"

#include <grpcpp/grpcpp.h>

#include <utility>

#include "absl/memory/memory.h"
#include "client/channel.h"
#include "client/rpc_values.h"
#include "common/status_macros.h"
#include "lancet/v1/admin.grpc.pb.h"

namespace lancet {
namespace {

std::string TaskName(v1::Task task) {
  switch (task) {
    case v1::TASK_GENERATE_IMAGE:
      return "generate";
    case v1::TASK_EDIT_IMAGE:
      return "edit";
    case v1::TASK_DESCRIBE_IMAGE:
      return "describe";
    default:
      return "unknown";
  }
}

ServerStatus FromProto(const v1::GetStatusResponse& from) {
  ServerStatus to;
  to.server_version = from.server_version();
  to.model = from.model();
  to.uptime = ToDuration(from.uptime());
  to.draining = from.draining();
  to.waiting = from.waiting();
  to.max_queue = from.max_queue();
  to.running = from.running();
  to.calls = from.calls();
  to.requests_succeeded = from.requests_succeeded();
  to.requests_failed = from.requests_failed();
  for (const v1::GroupStatus& group : from.groups()) {
    to.groups.push_back({.name = group.name(),
                         .state = StateName(group.state()),
                         .active_requests = group.active_requests(),
                         .device = group.device(),
                         .rank_connected = {group.rank_connected().begin(), group.rank_connected().end()},
                         .cache_tokens = group.cache_tokens(),
                         .max_cache_tokens = group.max_cache_tokens()});
  }
  for (const v1::RequestError& error : from.recent_errors()) {
    to.recent_errors.push_back({.request_id = error.request_id(),
                                .age = ToDuration(error.age()),
                                .task = TaskName(error.task()),
                                .code = absl::StatusCodeToString(static_cast<absl::StatusCode>(error.code())),
                                .message = error.message(),
                                .token = error.token()});
  }
  return to;
}

}  // namespace

struct StatusClient::Impl {
  ClientOptions options;
  std::unique_ptr<v1::AdminService::Stub> stub;
};

absl::StatusOr<std::unique_ptr<StatusClient>> StatusClient::Create(const ClientOptions& options) {
  LANCET_ASSIGN_OR_RETURN(const std::shared_ptr<grpc::Channel> channel, MakeChannel(options, {}));
  auto impl = std::make_unique<Impl>();
  impl->options = options;
  impl->stub = v1::AdminService::NewStub(channel);
  return absl::WrapUnique(new StatusClient(std::move(impl)));
}

StatusClient::StatusClient(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
StatusClient::~StatusClient() = default;

absl::StatusOr<ServerStatus> StatusClient::GetStatus(absl::Duration timeout) {
  grpc::ClientContext context;
  SetAuthorization(impl_->options, context);
  SetDeadline(context, timeout);
  v1::GetStatusResponse response;
  const grpc::Status status = impl_->stub->GetStatus(&context, v1::GetStatusRequest(), &response);
  if (!status.ok()) return FromGrpc(status);
  return FromProto(response);
}

}  // namespace lancet
