// An ImageService and a TextService in this process that does what a test tells it.
#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "lancet/v1/lancet.grpc.pb.h"

namespace lancet {

class FakeImageService final : public v1::ImageService::Service {
 public:
  using Writer = grpc::ServerWriter<v1::GenerateImageResponse>;
  using Behaviour =
      std::function<grpc::Status(grpc::ServerContext*, const v1::GenerateImageRequest&, Writer*)>;

  explicit FakeImageService(Behaviour behaviour) : behaviour_(std::move(behaviour)) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(this);
    builder.RegisterService(&text_);
    server_ = builder.BuildAndStart();
  }
  ~FakeImageService() override {
    server_->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(30));
  }

  grpc::Status GenerateImage(grpc::ServerContext* context, const v1::GenerateImageRequest* request,
                             Writer* writer) override {
    return behaviour_(context, *request, writer);
  }
  // Repeats the instruction as the picture's bytes.
  grpc::Status EditImage(grpc::ServerContext*, const v1::EditImageRequest* request,
                         grpc::ServerWriter<v1::EditImageResponse>* writer) override {
    v1::EditImageResponse event;
    event.mutable_result()->mutable_image()->set_data(
        absl::StrCat(request->instruction(), "|", request->images(0), "|", request->resolution()));
    writer->Write(event);
    return grpc::Status::OK;
  }
  grpc::Status GetModelInfo(grpc::ServerContext*, const v1::GetModelInfoRequest*,
                            v1::GetModelInfoResponse* response) override {
    response->set_name("fake");
    response->set_default_width(256);
    response->set_default_height(128);
    response->mutable_limits()->set_max_steps(77);
    v1::GroupInfo* group = response->add_groups();
    group->set_name("default");
    group->set_state(v1::GROUP_STATE_SERVING);
    group->set_world_size(2);
    return grpc::Status::OK;
  }
  std::string address() const { return absl::StrCat("127.0.0.1:", port_); }

 private:
  // Answers with the question, in two parts.
  class FakeTextService final : public v1::TextService::Service {
   public:
    grpc::Status DescribeImage(grpc::ServerContext*, const v1::DescribeImageRequest* request,
                               grpc::ServerWriter<v1::DescribeImageResponse>* writer) override {
      v1::DescribeImageResponse event;
      for (const std::string& text : {std::string("You ask: "), request->question()}) {
        event.mutable_delta()->set_text(text);
        writer->Write(event);
      }
      event.mutable_result()->set_text(absl::StrCat("You ask: ", request->question()));
      event.mutable_result()->set_finish_reason(v1::FINISH_REASON_LENGTH);
      event.mutable_result()->mutable_usage()->set_answer_tokens(request->max_new_tokens());
      writer->Write(event);
      return grpc::Status::OK;
    }
  };

  const Behaviour behaviour_;
  FakeTextService text_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

// What a healthy server sends for a request of two steps with previews.
inline void SendWholeRequest(FakeImageService::Writer* writer, uint64_t seed) {
  v1::GenerateImageResponse event;
  event.mutable_queued()->set_position(1);
  writer->Write(event);
  event.mutable_started()->set_seed(seed);
  event.mutable_started()->set_num_inference_steps(2);
  writer->Write(event);
  event.mutable_progress()->set_step(1);
  event.mutable_progress()->set_total_steps(2);
  event.mutable_progress()->mutable_elapsed()->set_nanos(500000000);
  writer->Write(event);
  event.mutable_preview()->set_step(1);
  event.mutable_preview()->mutable_image()->set_format(v1::IMAGE_FORMAT_JPEG);
  event.mutable_preview()->mutable_image()->set_data("preview");
  writer->Write(event);
  event.mutable_result()->set_seed(seed);
  event.mutable_result()->set_model_fingerprint("f00d");
  event.mutable_result()->mutable_image()->set_format(v1::IMAGE_FORMAT_PNG);
  event.mutable_result()->mutable_image()->set_width(32);
  event.mutable_result()->mutable_image()->set_height(16);
  event.mutable_result()->mutable_image()->set_data("result");
  event.mutable_result()->mutable_timings()->mutable_total()->set_seconds(2);
  writer->Write(event);
}

}  // namespace lancet
