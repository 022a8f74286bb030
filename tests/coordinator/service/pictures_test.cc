// Requests with a picture, through the real server.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/coordinator/service/service_fixture.h"

namespace lancet {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class PicturesTest : public ServiceFixture {
 protected:
  v1::GetModelInfoResponse Info() {
    grpc::ClientContext context;
    v1::GetModelInfoResponse info;
    EXPECT_TRUE(stub_->GetModelInfo(&context, {}, &info).ok());
    return info;
  }
};

TEST_F(PicturesTest, AnEditStreamsProgressAndHasTheSizeOfItsBucket) {
  StartServer();
  StartRanks();
  const EditOutcome outcome = Edit(GoodEdit());
  ASSERT_TRUE(outcome.status.ok()) << outcome.status.error_message();
  ASSERT_FALSE(outcome.events.empty());
  v1::StartedEvent started;
  for (const v1::EditImageResponse& event : outcome.events) {
    if (event.has_started()) started = event.started();
  }
  EXPECT_EQ(started.seed(), 7u);
  EXPECT_EQ(started.num_inference_steps(), 2);
  EXPECT_EQ(started.input().width(), 40);
  EXPECT_EQ(started.input().height(), 30);
  EXPECT_EQ(started.input().resolution(), v1::RESOLUTION_UNSPECIFIED);
  EXPECT_EQ(started.width() % 16, 0);
  EXPECT_EQ(started.input().vision_width() % 28, 0);
  ASSERT_TRUE(outcome.events.back().has_result());
  const v1::ImageResult& result = outcome.events.back().result();
  EXPECT_EQ(result.image().width(), started.width());
  EXPECT_EQ(result.image().height(), started.height());
}

TEST_F(PicturesTest, AResolutionIsNamedOrTheModels) {
  StartServer();
  StartRanks();
  v1::EditImageRequest request = GoodEdit();
  request.clear_width();
  request.clear_height();
  for (const auto resolution : {v1::RESOLUTION_UNSPECIFIED, v1::RESOLUTION_IMAGE_512RES}) {
    request.set_resolution(resolution);
    const EditOutcome outcome = Edit(request);
    ASSERT_TRUE(outcome.status.ok()) << outcome.status.error_message();
    v1::StartedEvent started;
    for (const v1::EditImageResponse& event : outcome.events) {
      if (event.has_started()) started = event.started();
    }
    // The default size of the fixture's model is nearest to the smallest.
    const bool small = resolution == v1::RESOLUTION_UNSPECIFIED;
    EXPECT_EQ(started.input().resolution(), small ? v1::RESOLUTION_IMAGE_256RES : resolution);
    EXPECT_EQ(started.width(), small ? 304 : 592);
    EXPECT_EQ(started.height(), small ? 224 : 448);
    EXPECT_EQ(started.input().vision_width(), small ? 252 : 504);
    EXPECT_EQ(started.input().vision_height(), small ? 168 : 364);
  }
}

TEST_F(PicturesTest, AnAnswerStreamsAsText) {
  StartServer();
  StartRanks();
  v1::DescribeImageRequest request = GoodQuestion();
  request.set_question(
      "gr\xC3\xB6\xC3\x9F"
      "er \xF0\x9F\x90\xB1?");
  const TextOutcome outcome = Describe(request);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status.error_message();
  std::string text;
  int tokens = 0;
  for (const v1::DescribeImageResponse& event : outcome.events) {
    text += event.delta().text();
    if (!event.has_delta()) continue;
    EXPECT_GT(event.delta().token_count(), tokens);
    tokens = event.delta().token_count();
  }
  ASSERT_TRUE(outcome.events.back().has_result());
  const v1::TextResult& result = outcome.events.back().result();
  EXPECT_EQ(result.text(), request.question());
  EXPECT_EQ(text, result.text());
  EXPECT_EQ(result.finish_reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(result.usage().answer_tokens(), static_cast<int>(request.question().size()) + 1);
  EXPECT_GT(result.usage().prompt_tokens(), 0);
}

TEST_F(PicturesTest, AnAnswerIsCutWhereItMustAndIsAskedForByDefault) {
  StartServer();
  StartRanks();
  v1::DescribeImageRequest request = GoodQuestion();
  request.clear_question();
  request.set_max_new_tokens(8);
  const TextOutcome outcome = Describe(request);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status.error_message();
  EXPECT_EQ(outcome.events.back().result().text(), "Describe");
  EXPECT_EQ(outcome.events.back().result().finish_reason(), v1::FINISH_REASON_LENGTH);
}

TEST_F(PicturesTest, WithoutAVisionTowerPicturesAreAFailedPreconditionAndTheInfoSaysSo) {
  has_vision = false;
  StartServer();
  StartRanks();
  const EditOutcome edit = Edit(GoodEdit());
  EXPECT_EQ(edit.status.error_code(), grpc::FAILED_PRECONDITION);
  EXPECT_THAT(edit.status.error_message(), HasSubstr("no vision tower"));
  EXPECT_EQ(Describe(GoodQuestion()).status.error_code(), grpc::FAILED_PRECONDITION);
  EXPECT_TRUE(Generate(GoodRequest()).status.ok());
  EXPECT_THAT(Info().tasks(), ElementsAre(v1::TASK_GENERATE_IMAGE));
}

TEST_F(PicturesTest, TheInfoNamesTasksAndLimits) {
  StartServer();
  StartRanks();
  const v1::GetModelInfoResponse info = Info();
  EXPECT_THAT(info.tasks(),
              ElementsAre(v1::TASK_GENERATE_IMAGE, v1::TASK_EDIT_IMAGE, v1::TASK_DESCRIBE_IMAGE));
  EXPECT_EQ(info.default_resolution(), v1::RESOLUTION_IMAGE_256RES);
  EXPECT_EQ(info.limits().max_image_side(), 2000);
  EXPECT_EQ(info.limits().max_image_pixels(), 1000000);
  EXPECT_EQ(info.limits().max_image_bytes(), 200000);
  EXPECT_EQ(info.limits().max_new_tokens(), 1024);
}

}  // namespace
}  // namespace lancet
