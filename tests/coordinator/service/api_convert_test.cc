#include "coordinator/service/api_convert.h"

#include <gmock/gmock.h>
#include <google/protobuf/any.pb.h>
#include <google/protobuf/duration.pb.h>
#include <google/protobuf/unknown_field_set.h>
#include <gtest/gtest.h>

#include <string>

namespace lancet {
namespace {

using ::testing::HasSubstr;

TEST(ParseGenerateRequestTest, TakesEveryFieldOver) {
  v1::GenerateImageRequest message;
  message.set_prompt("a panda");
  message.set_seed(~uint64_t{0});
  message.set_num_inference_steps(12);
  message.set_guidance_scale(3.5f);
  message.set_timestep_shift(2.5f);
  message.mutable_guidance_interval()->set_start(0.25f);
  message.mutable_guidance_interval()->set_end(0.75f);
  message.set_width(320);
  message.set_height(160);
  message.mutable_preview()->set_every_n_steps(5);
  message.mutable_preview()->set_method(v1::PREVIEW_METHOD_VAE);
  message.mutable_preview()->set_max_side(128);
  message.mutable_preview()->set_format(v1::IMAGE_FORMAT_WEBP);
  message.set_output_format(v1::IMAGE_FORMAT_JPEG);
  message.set_priority(v1::PRIORITY_HIGH);
  const absl::StatusOr<GenerateRequest> request = ParseGenerateRequest(message.SerializeAsString());
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->prompt, "a panda");
  EXPECT_EQ(request->seed, ~uint64_t{0});
  EXPECT_EQ(request->num_inference_steps, 12);
  EXPECT_EQ(request->guidance_scale, 3.5f);
  EXPECT_EQ(request->timestep_shift, 2.5f);
  ASSERT_TRUE(request->guidance_interval.has_value());
  EXPECT_EQ(request->guidance_interval->start, 0.25f);
  EXPECT_EQ(request->guidance_interval->end, 0.75f);
  EXPECT_EQ(request->width, 320);
  EXPECT_EQ(request->height, 160);
  ASSERT_TRUE(request->preview.has_value());
  EXPECT_EQ(request->preview->every_n_steps, 5);
  EXPECT_EQ(request->preview->method, 2);
  EXPECT_EQ(request->preview->max_side, 128);
  EXPECT_EQ(request->preview->format, 3);
  EXPECT_EQ(request->output_format, 2);
  EXPECT_EQ(request->priority, 3);
}

TEST(ParseGenerateRequestTest, WhatIsUnsetStaysUnset) {
  const absl::StatusOr<GenerateRequest> request = ParseGenerateRequest("");
  ASSERT_TRUE(request.ok());
  EXPECT_FALSE(request->seed.has_value());
  EXPECT_FALSE(request->num_inference_steps.has_value());
  EXPECT_FALSE(request->guidance_interval.has_value());
  EXPECT_FALSE(request->width.has_value());
  EXPECT_FALSE(request->preview.has_value());
}

TEST(ParseGenerateRequestTest, NamesThePromptThatIsNotUtf8) {
  EXPECT_EQ(std::string(ParseGenerateRequest("\x0a\x03"
                                             "ab\xff")
                            .status()
                            .message()),
            "prompt: not valid UTF-8 at byte 2 of 3");
  EXPECT_THAT(std::string(ParseGenerateRequest("\x0a\x7f").status().message()),
              HasSubstr("not a lancet.v1.GenerateImageRequest"));
}

TEST(SerializeEventTest, WritesEveryKind) {
  const auto parse = [](const ClientEvent& event) {
    v1::GenerateImageResponse message;
    EXPECT_TRUE(message.ParseFromString(SerializeGenerateEvent(event)));
    return message;
  };
  EXPECT_EQ(parse(QueuedEvent{3, absl::Milliseconds(1500)}).queued().position(), 3);
  EXPECT_EQ(parse(QueuedEvent{3, absl::Milliseconds(1500)}).queued().estimated_wait().nanos(), 500000000);
  EXPECT_FALSE(parse(QueuedEvent{0, std::nullopt}).queued().has_estimated_wait());

  const v1::StartedEvent started = parse(StartedEvent{"id", 5, 64, 32, 30, {"odd"}}).started();
  EXPECT_EQ(started.request_id(), "id");
  EXPECT_EQ(started.seed(), 5u);
  EXPECT_EQ(started.width(), 64);
  EXPECT_EQ(started.height(), 32);
  EXPECT_EQ(started.num_inference_steps(), 30);
  EXPECT_EQ(started.warnings(0), "odd");

  const v1::ProgressEvent progress =
      parse(ProgressEvent{2, 30, absl::Seconds(4), absl::Seconds(56)}).progress();
  EXPECT_EQ(progress.step(), 2);
  EXPECT_EQ(progress.total_steps(), 30);
  EXPECT_EQ(progress.elapsed().seconds(), 4);
  EXPECT_EQ(progress.estimated_remaining().seconds(), 56);

  const v1::PreviewEvent preview = parse(PreviewEvent{4, {ImageFormat::kJpeg, 8, 6, "jpeg"}}).preview();
  EXPECT_EQ(preview.step(), 4);
  EXPECT_EQ(preview.image().format(), v1::IMAGE_FORMAT_JPEG);
  EXPECT_EQ(preview.image().data(), "jpeg");

  ResultEvent event;
  event.image = {ImageFormat::kPng, 64, 32, "png"};
  event.seed = 9;
  event.timings.queue = absl::Seconds(1);
  event.timings.total = absl::Seconds(7);
  event.model_fingerprint = "f00d";
  const v1::ImageResult result = parse(event).result();
  EXPECT_EQ(result.image().format(), v1::IMAGE_FORMAT_PNG);
  EXPECT_EQ(result.image().width(), 64);
  EXPECT_EQ(result.seed(), 9u);
  EXPECT_EQ(result.timings().queue().seconds(), 1);
  EXPECT_EQ(result.timings().total().seconds(), 7);
  EXPECT_EQ(result.model_fingerprint(), "f00d");
}

TEST(RetryDetailsTest, AreAGoogleRpcStatusWithRetryInfo) {
  google::protobuf::UnknownFieldSet status;
  ASSERT_TRUE(status.ParseFromString(SerializeRetryDetails(8, "full", absl::Milliseconds(2250))));
  ASSERT_EQ(status.field_count(), 3);
  EXPECT_EQ(status.field(0).varint(), 8u);
  EXPECT_EQ(status.field(1).length_delimited(), "full");
  EXPECT_EQ(status.field(2).number(), 3);
  google::protobuf::Any detail;
  ASSERT_TRUE(detail.ParseFromString(status.field(2).length_delimited()));
  EXPECT_EQ(detail.type_url(), "type.googleapis.com/google.rpc.RetryInfo");
  google::protobuf::UnknownFieldSet info;
  ASSERT_TRUE(info.ParseFromString(detail.value()));
  ASSERT_EQ(info.field_count(), 1);
  EXPECT_EQ(info.field(0).number(), 1);
  google::protobuf::Duration delay;
  ASSERT_TRUE(delay.ParseFromString(info.field(0).length_delimited()));
  EXPECT_EQ(delay.seconds(), 2);
  EXPECT_EQ(delay.nanos(), 250000000);
}

TEST(ModelInfoTest, TellsStatesOfGroups) {
  ModelInfo info;
  info.card.name = "m";
  info.card.sizes = {{256, 128}};
  info.max_queue = 5;
  const std::vector<GroupInfo> groups = {{"a", 2, true, 3, "cpu"}, {"b", 4, false, 0, ""}};
  const v1::GetModelInfoResponse message = ToProto(info, groups, false);
  EXPECT_EQ(message.name(), "m");
  EXPECT_EQ(message.recommended_sizes(0).width(), 256);
  EXPECT_EQ(message.limits().max_queue(), 5);
  EXPECT_EQ(message.limits().max_steps(), Limits().max_steps);
  ASSERT_EQ(message.groups_size(), 2);
  EXPECT_EQ(message.groups(0).state(), v1::GROUP_STATE_SERVING);
  EXPECT_EQ(message.groups(0).active_requests(), 3);
  EXPECT_EQ(message.groups(1).state(), v1::GROUP_STATE_FORMING);
  EXPECT_EQ(ToProto(info, groups, true).groups(0).state(), v1::GROUP_STATE_DRAINING);
}

}  // namespace
}  // namespace lancet
