#include "coordinator/service/admin_service.h"

#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/service_type.h>

#include <utility>

#include "absl/status/statusor.h"
#include "lancet/v1/admin.grpc.pb.h"
#include "rpc/metadata.h"
#include "rpc/status.h"

namespace lancet {
namespace {

void SetDuration(absl::Duration from, google::protobuf::Duration& to) {
  to.set_seconds(absl::ToInt64Seconds(from));
  to.set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(from - absl::Seconds(to.seconds()))));
}

v1::Task ToProto(RequestTask task) {
  switch (task) {
    case RequestTask::kGenerate:
      return v1::TASK_GENERATE_IMAGE;
    case RequestTask::kEdit:
      return v1::TASK_EDIT_IMAGE;
    case RequestTask::kDescribe:
      return v1::TASK_DESCRIBE_IMAGE;
  }
  return v1::TASK_UNSPECIFIED;
}

void SetGroup(const GroupInfo& from, bool draining, v1::GroupStatus& to) {
  to.set_name(from.name);
  to.set_state(!from.serving              ? v1::GROUP_STATE_FORMING
               : draining || from.leaving ? v1::GROUP_STATE_DRAINING
                                          : v1::GROUP_STATE_SERVING);
  to.set_active_requests(from.active_requests);
  to.set_device(from.device);
  for (const bool there : from.ranks_there) to.add_rank_connected(there);
  to.set_cache_tokens(from.cache_tokens);
  to.set_max_cache_tokens(from.max_cache_tokens);
}

class AdminService final : public v1::AdminService::CallbackService {
 public:
  AdminService(ServiceOptions options, absl::Time start) : options_(std::move(options)), start_(start) {}

  grpc::ServerUnaryReactor* GetStatus(grpc::CallbackServerContext* context, const v1::GetStatusRequest*,
                                      v1::GetStatusResponse* response) override {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(ToGrpcStatus(Fill(MetadataOf(*context, "authorization"), *response)));
    return reactor;
  }

 private:
  absl::Status Fill(absl::string_view authorization, v1::GetStatusResponse& response) {
    const absl::StatusOr<AccessLease> lease = options_.access->Enter(authorization);
    if (!lease.ok()) return lease.status();
    if (!lease->admin()) return absl::PermissionDeniedError("this token is not marked admin");
    const absl::Time now = options_.clock->Now();
    const ServiceStatus status = options_.dispatcher->Status();
    const bool draining = options_.readiness->draining();
    response.set_server_version(options_.intake.info.server_version);
    response.set_model(options_.intake.info.card.name);
    SetDuration(now - start_, *response.mutable_uptime());
    response.set_draining(draining);
    response.set_waiting(status.waiting);
    response.set_max_queue(options_.intake.info.max_queue);
    response.set_running(status.running);
    response.set_calls(status.calls);
    for (const GroupInfo& group : status.groups) SetGroup(group, draining, *response.add_groups());
    if (options_.recent_errors == nullptr) return absl::OkStatus();
    const RecentErrors::Summary summary = options_.recent_errors->Read();
    response.set_requests_succeeded(summary.succeeded);
    response.set_requests_failed(summary.failed);
    for (const RecentError& error : summary.errors) {
      v1::RequestError& to = *response.add_recent_errors();
      to.set_request_id(RequestIdText(error.request_id));
      SetDuration(now - error.time, *to.mutable_age());
      to.set_task(ToProto(error.task));
      to.set_code(static_cast<int32_t>(error.status.code()));
      to.set_message(std::string(error.status.message()));
      to.set_token(error.caller);
    }
    return absl::OkStatus();
  }

  const ServiceOptions options_;
  const absl::Time start_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeAdminService(const ServiceOptions& options, absl::Time start) {
  return std::make_unique<AdminService>(options, start);
}

}  // namespace lancet
