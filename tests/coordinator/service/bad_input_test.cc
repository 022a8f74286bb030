// Everything a client can do wrong, through the real server, which must answer with the status and the name
// of the field and then serve the next request.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "tests/coordinator/service/service_fixture.h"

namespace lancet {
namespace {

using ::testing::HasSubstr;

class BadInputTest : public ServiceFixture {};

struct Case {
  const char* name;
  std::function<void(v1::GenerateImageRequest&)> spoil;
  grpc::StatusCode code;
  const char* message;  // names the field
};

void SetSize(v1::GenerateImageRequest& request, int width, int height) {
  request.set_width(width);
  request.set_height(height);
}

std::vector<Case> Cases() {
  using R = v1::GenerateImageRequest;
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  const auto invalid = grpc::INVALID_ARGUMENT;
  return {
      {"empty prompt", [](R& r) { r.set_prompt(""); }, grpc::OK, ""},
      {"100 kB prompt", [](R& r) { r.set_prompt(std::string(100 << 10, 'x')); }, invalid, "prompt"},
      {"invalid UTF-8", [](R& r) { r.set_prompt("a\xff\xfe"); }, invalid,
       "prompt: not valid UTF-8 at byte 1"},
      {"truncated UTF-8", [](R& r) { r.set_prompt("a\xe2\x82"); }, invalid, "prompt: not valid UTF-8"},
      {"size 0", [](R& r) { SetSize(r, 0, 32); }, invalid, "width"},
      {"size 15", [](R& r) { SetSize(r, 32, 15); }, invalid, "height"},
      {"size 17", [](R& r) { SetSize(r, 17, 32); }, invalid, "width"},
      {"size 100000", [](R& r) { SetSize(r, 32, 100000); }, invalid, "height"},
      {"size negative", [](R& r) { SetSize(r, -16, 32); }, invalid, "width"},
      {"too many pixels", [](R& r) { SetSize(r, 2048, 2048); }, invalid, "width"},
      {"width alone", [](R& r) { r.set_width(32); }, invalid, "height"},
      {"steps 0", [](R& r) { r.set_num_inference_steps(0); }, invalid, "num_inference_steps"},
      {"steps 10001", [](R& r) { r.set_num_inference_steps(10001); }, invalid, "num_inference_steps"},
      {"NaN guidance", [](R& r) { r.set_guidance_scale(kNan); }, invalid, "guidance_scale"},
      {"NaN shift", [](R& r) { r.set_timestep_shift(kNan); }, invalid, "timestep_shift"},
      {"interval reversed",
       [](R& r) {
         r.mutable_guidance_interval()->set_start(0.9f);
         r.mutable_guidance_interval()->set_end(0.1f);
       },
       invalid, "guidance_interval"},
      {"unknown format", [](R& r) { r.set_output_format(static_cast<v1::ImageFormat>(99)); }, invalid,
       "output_format"},
      {"unknown priority", [](R& r) { r.set_priority(static_cast<v1::Priority>(-3)); }, invalid, "priority"},
      {"unknown sampler", [](R& r) { r.set_sampler(static_cast<v1::Sampler>(3)); }, invalid, "sampler"},
      {"unknown preview method",
       [](R& r) {
         r.mutable_preview()->set_every_n_steps(1);
         r.mutable_preview()->set_method(static_cast<v1::PreviewMethod>(7));
       },
       invalid, "preview.method"},
      {"preview every 0", [](R& r) { r.mutable_preview()->set_every_n_steps(0); }, invalid,
       "preview.every_n_steps"},
      {"preview side 5000",
       [](R& r) {
         r.mutable_preview()->set_every_n_steps(1);
         r.mutable_preview()->set_max_side(5000);
       },
       invalid, "preview.max_side"},
      {"200 MB", [](R& r) { r.set_prompt(std::string(200 << 20, 'x')); }, grpc::RESOURCE_EXHAUSTED,
       "larger than max"},
  };
}

TEST_F(BadInputTest, GetsTheStatusAndTheFieldAndTheNextRequestIsServed) {
  StartServer();
  StartRanks();
  for (const Case& c : Cases()) {
    SCOPED_TRACE(c.name);
    v1::GenerateImageRequest request = GoodRequest();
    c.spoil(request);
    const Outcome outcome = Generate(request);
    EXPECT_EQ(outcome.status.error_code(), c.code) << outcome.status.error_message();
    EXPECT_THAT(outcome.status.error_message(), HasSubstr(c.message));
    const Outcome next = Generate(GoodRequest());
    EXPECT_TRUE(next.status.ok()) << next.status.error_message();
  }
}

template <typename Request>
struct PictureCase {
  const char* name;
  std::function<void(Request&)> spoil;
  const char* message;  // names the field
};

// A request of the kind whose first image is `file`.
template <typename Request>
std::function<void(Request&)> WithFile(std::string file) {
  return [file = std::move(file)](Request& r) { *r.mutable_images(0) = file; };
}

// What can be wrong with the picture of either request.
template <typename Request>
std::vector<PictureCase<Request>> PictureCases(const std::string& good) {
  using R = Request;
  // A PNG header that claims 2001 x 1.
  std::string wide = good;
  wide.replace(16, 8, std::string("\0\0\x07\xd1\0\0\0\x01", 8));
  return {
      {"no image", [](R& r) { r.clear_images(); }, "images: none"},
      {"two images", [](R& r) { r.add_images(r.images(0)); }, "images: 2 are given"},
      {"empty file", WithFile<R>(""), "images:"},
      {"no picture", WithFile<R>("GIF89a, as it says"), "images:"},
      {"cut off", WithFile<R>(good.substr(0, good.size() / 2)), "images:"},
      {"too wide", WithFile<R>(wide), "images:"},
      {"too many bytes", WithFile<R>(good + std::string(300000, '\0')), "images:"},
      {"unknown resolution", [](R& r) { r.set_resolution(static_cast<v1::Resolution>(77)); }, "resolution"},
      {"unknown priority", [](R& r) { r.set_priority(static_cast<v1::Priority>(9)); }, "priority"},
  };
}

TEST_F(BadInputTest, EditsGetTheStatusAndTheFieldAndTheNextIsServed) {
  using R = v1::EditImageRequest;
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  std::vector<PictureCase<R>> cases = PictureCases<R>(GoodPicture());
  const std::vector<PictureCase<R>> own = {
      {"100 kB instruction", [](R& r) { r.set_instruction(std::string(100 << 10, 'x')); }, "instruction"},
      {"invalid UTF-8", [](R& r) { r.set_instruction("a\xff"); }, "instruction: not valid UTF-8 at byte 1"},
      {"width alone", [](R& r) { r.clear_height(); }, "height: not set"},
      {"height alone", [](R& r) { r.clear_width(); }, "width: not set"},
      {"width 0", [](R& r) { r.set_width(0); }, "width"},
      {"height 100000", [](R& r) { r.set_height(100000); }, "height"},
      {"tiny area", [](R& r) { r.set_width(16); }, "width, height"},
      {"area and resolution", [](R& r) { r.set_resolution(v1::RESOLUTION_IMAGE_256RES); }, "resolution"},
      {"steps 0", [](R& r) { r.set_num_inference_steps(0); }, "num_inference_steps"},
      {"NaN guidance", [](R& r) { r.set_guidance_scale(kNan); }, "guidance_scale"},
      {"NaN shift", [](R& r) { r.set_timestep_shift(kNan); }, "timestep_shift"},
      {"interval beyond 1", [](R& r) { r.mutable_guidance_interval()->set_end(1.5f); },
       "guidance_interval.end"},
      {"unknown sampler", [](R& r) { r.set_sampler(static_cast<v1::Sampler>(3)); }, "sampler"},
      {"unknown format", [](R& r) { r.set_output_format(static_cast<v1::ImageFormat>(99)); },
       "output_format"},
      {"preview every 0", [](R& r) { r.mutable_preview(); }, "preview.every_n_steps"},
  };
  cases.insert(cases.end(), own.begin(), own.end());
  StartServer();
  StartRanks();
  for (const PictureCase<R>& c : cases) {
    SCOPED_TRACE(c.name);
    R request = GoodEdit();
    c.spoil(request);
    const EditOutcome outcome = Edit(request);
    EXPECT_EQ(outcome.status.error_code(), grpc::INVALID_ARGUMENT) << outcome.status.error_message();
    EXPECT_THAT(outcome.status.error_message(), HasSubstr(c.message));
  }
  EXPECT_TRUE(Edit(GoodEdit()).status.ok());
}

TEST_F(BadInputTest, QuestionsGetTheStatusAndTheFieldAndTheNextIsServed) {
  using R = v1::DescribeImageRequest;
  std::vector<PictureCase<R>> cases = PictureCases<R>(GoodPicture());
  const std::vector<PictureCase<R>> own = {
      {"100 kB question", [](R& r) { r.set_question(std::string(100 << 10, 'x')); }, "question"},
      {"100 kB system prompt", [](R& r) { r.set_system_prompt(std::string(100 << 10, 'x')); },
       "system_prompt"},
      {"question not UTF-8", [](R& r) { r.set_question("\xc3"); }, "question: not valid UTF-8"},
      {"system prompt not UTF-8", [](R& r) { r.set_system_prompt("ab\x80"); },
       "system_prompt: not valid UTF-8 at byte 2"},
      {"0 tokens", [](R& r) { r.set_max_new_tokens(0); }, "max_new_tokens"},
      {"-1 tokens", [](R& r) { r.set_max_new_tokens(-1); }, "max_new_tokens"},
      {"1025 tokens", [](R& r) { r.set_max_new_tokens(1025); }, "max_new_tokens: 1025 is not from 1 to 1024"},
      {"temperature -1", [](R& r) { r.set_temperature(-1); }, "temperature"},
      {"temperature 11", [](R& r) { r.set_temperature(11); }, "temperature"},
      {"NaN temperature", [](R& r) { r.set_temperature(std::numeric_limits<float>::quiet_NaN()); },
       "temperature"},
  };
  cases.insert(cases.end(), own.begin(), own.end());
  StartServer();
  StartRanks();
  for (const PictureCase<R>& c : cases) {
    SCOPED_TRACE(c.name);
    R request = GoodQuestion();
    c.spoil(request);
    const TextOutcome outcome = Describe(request);
    EXPECT_EQ(outcome.status.error_code(), grpc::INVALID_ARGUMENT) << outcome.status.error_message();
    EXPECT_THAT(outcome.status.error_message(), HasSubstr(c.message));
  }
  EXPECT_TRUE(Describe(GoodQuestion()).status.ok());
}

TEST_F(BadInputTest, BytesThatAreNoRequestAreRefused) {
  StartServer();
  StartRanks();
  for (const std::string& bytes :
       {std::string("\xff\xff\xff\xff"), std::string(1000, '\x0a'), std::string("\x0a\x7f")}) {
    std::string response;
    const grpc::Status status = CallRaw("/lancet.v1.ImageService/GenerateImage", bytes, response);
    EXPECT_EQ(status.error_code(), grpc::INVALID_ARGUMENT);
    EXPECT_THAT(status.error_message(), HasSubstr("not a lancet.v1.GenerateImageRequest"));
  }
  EXPECT_TRUE(Generate(GoodRequest()).status.ok());
}

TEST_F(BadInputTest, AClientThatNeverReadsIsCutOffAndItsCallFreed) {
  adjust = [](Dispatcher::Options& options) {
    options.core.client_stall_timeout = absl::Milliseconds(300);
    options.core.max_calls = 1;
  };
  StartServer();
  StartRanks();
  grpc::ChannelArguments arguments;
  // A small window, as of a client that has stopped reading its socket.
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 65535);
  const auto stub = v1::ImageService::NewStub(NewChannel(arguments));
  grpc::ClientContext context;
  v1::GenerateImageRequest request = GoodRequest();
  SetSize(request, 1024, 1024);  // 3 MB of noise as PNG
  const auto reader = stub->GenerateImage(&context, request);
  // With one call allowed in all, the next is served only once the silent one is gone.
  EXPECT_TRUE(GenerateUntilOk().ok());
  v1::GenerateImageResponse event;
  while (reader->Read(&event)) EXPECT_FALSE(event.has_result());
  EXPECT_EQ(reader->Finish().error_code(), grpc::CANCELLED);
}

TEST_F(BadInputTest, AClientThatDisconnectsAtOnceCostsNothing) {
  StartServer();
  StartRanks();
  for (int i = 0; i < 20; ++i) {
    // A connection of its own, dropped with its call.
    const auto stub = v1::ImageService::NewStub(NewChannel());
    grpc::ClientContext context;
    const auto reader = stub->GenerateImage(&context, GoodRequest());
    context.TryCancel();
    EXPECT_EQ(reader->Finish().error_code(), grpc::CANCELLED);
  }
  EXPECT_TRUE(GenerateUntilOk().ok());
  // A release follows every admission, be it after the picture's last byte.
  EXPECT_TRUE(WaitUntil([&] { return ranks_[0]->num_admitted() == 0; }));
}

}  // namespace
}  // namespace lancet
