#include "coordinator/service/image_service.h"

#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/service_type.h>

#include <string>
#include <utility>

#include "coordinator/service/api_convert.h"
#include "coordinator/service/stream_call.h"
#include "lancet/v1/lancet.grpc.pb.h"
#include "rpc/metadata.h"
#include "rpc/status.h"

namespace lancet {
namespace {

using Intake = absl::StatusOr<NewRequest> (*)(const IntakeOptions& options, const std::string& wire,
                                              uint64_t id);

// For those who want to know nothing; without state.
ServiceObserver* NoObserver() {
  static ServiceObserver observer;
  return &observer;
}

// `options` outlives the method.
StreamMethod MakeMethod(const ServiceOptions* options, RequestTask task, TaskRunner* pool, Intake intake,
                        std::string (*serialize)(const ClientEvent&)) {
  StreamMethod method;
  method.task = task;
  method.dispatcher = options->dispatcher;
  method.observer = options->observer != nullptr ? options->observer : NoObserver();
  method.access = options->access;
  method.max_queue = options->intake.info.max_queue;
  method.random = options->intake.random;
  method.pool = pool;
  method.clock = options->clock;
  method.intake = [options, intake](const std::string& wire, uint64_t id) {
    return intake(options->intake, wire, id);
  };
  method.serialize = serialize;
  return method;
}

// Raw bytes in and out, see ParseGenerateRequest; a result is serialised once.
using ImageServiceBase =
    v1::ImageService::WithRawCallbackMethod_GenerateImage<v1::ImageService::WithRawCallbackMethod_EditImage<
        v1::ImageService::WithCallbackMethod_GetModelInfo<v1::ImageService::Service>>>;

class ImageService final : public ImageServiceBase {
 public:
  explicit ImageService(ServiceOptions options)
      : options_(std::move(options)),
        generate_(MakeMethod(&options_, RequestTask::kGenerate, options_.admission_pool, IntakeGenerate,
                             SerializeGenerateEvent)),
        edit_(
            MakeMethod(&options_, RequestTask::kEdit, options_.image_pool, IntakeEdit, SerializeEditEvent)) {}

  grpc::ServerWriteReactor<grpc::ByteBuffer>* GenerateImage(grpc::CallbackServerContext* context,
                                                            const grpc::ByteBuffer* request) override {
    return StreamCall::Begin(&generate_, context, options_.intake.random(), *request);
  }

  grpc::ServerWriteReactor<grpc::ByteBuffer>* EditImage(grpc::CallbackServerContext* context,
                                                        const grpc::ByteBuffer* request) override {
    return StreamCall::Begin(&edit_, context, options_.intake.random(), *request);
  }

  grpc::ServerUnaryReactor* GetModelInfo(grpc::CallbackServerContext* context, const v1::GetModelInfoRequest*,
                                         v1::GetModelInfoResponse* response) override {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    const auto lease = options_.access->Enter(MetadataOf(*context, "authorization"));
    if (!lease.ok()) {
      reactor->Finish(ToGrpcStatus(lease.status()));
      return reactor;
    }
    *response = ToProto(options_.intake.info, options_.dispatcher->Groups(), options_.readiness->draining());
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

 private:
  const ServiceOptions options_;
  const StreamMethod generate_;
  const StreamMethod edit_;
};

using TextServiceBase = v1::TextService::WithRawCallbackMethod_DescribeImage<v1::TextService::Service>;

class TextService final : public TextServiceBase {
 public:
  explicit TextService(ServiceOptions options)
      : options_(std::move(options)),
        describe_(MakeMethod(&options_, RequestTask::kDescribe, options_.image_pool, IntakeDescribe,
                             SerializeDescribeEvent)) {}

  grpc::ServerWriteReactor<grpc::ByteBuffer>* DescribeImage(grpc::CallbackServerContext* context,
                                                            const grpc::ByteBuffer* request) override {
    return StreamCall::Begin(&describe_, context, options_.intake.random(), *request);
  }

 private:
  const ServiceOptions options_;
  const StreamMethod describe_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeImageService(const ServiceOptions& options) {
  return std::make_unique<ImageService>(options);
}

std::unique_ptr<grpc::Service> MakeTextService(const ServiceOptions& options) {
  return std::make_unique<TextService>(options);
}

}  // namespace lancet
