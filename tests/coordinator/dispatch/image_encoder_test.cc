#include "coordinator/dispatch/image_encoder.h"

#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <memory>
#include <optional>
#include <variant>

#include "coordinator/request/image_codec.h"
#include "coordinator/request/image_decoder.h"
#include "tests/coordinator/testing/fake_clock.h"

namespace lancet {
namespace {

constexpr std::chrono::seconds kLong(20);

RgbImage Grey(int width, int height, uint8_t value) {
  return RgbImage{width, height, std::vector<uint8_t>(3 * width * height, value)};
}

class ImageEncoderTest : public ::testing::Test {
 protected:
  ImageEncoderTest() : pool_(Options()), encoder_(&pool_), stream_(std::make_shared<EventStream>(&clock_)) {}

  static TaskRunner::Options Options() {
    TaskRunner::Options options;
    options.capacity = 2;
    return options;
  }

  // Keeps the pool's thread busy until Release.
  void Occupy() {
    std::promise<void> entered;
    pool_.Post([this, &entered] {
      entered.set_value();
      release_.get_future().wait_for(kLong);
    });
    entered.get_future().wait_for(kLong);
  }

  std::optional<PreviewEvent> TakePreview() {
    auto next = stream_->Take();
    if (!next.has_value()) return std::nullopt;
    stream_->Sent();
    return std::get<PreviewEvent>(std::get<ClientEvent>(*next));
  }

  FakeClock clock_;
  std::promise<void> release_;
  TaskRunner pool_;
  PooledImageEncoder encoder_;
  std::shared_ptr<EventStream> stream_;
};

TEST_F(ImageEncoderTest, ScalesAndEncodesAPreview) {
  PreviewPlan plan;
  plan.max_side = 8;
  plan.format = ImageFormat::kPng;
  encoder_.EncodePreview(std::make_shared<PreviewSlot>(), 3, Grey(32, 16, 200), plan, stream_);
  pool_.Stop();
  const std::optional<PreviewEvent> preview = TakePreview();
  ASSERT_TRUE(preview.has_value());
  EXPECT_EQ(preview->step, 3);
  EXPECT_EQ(preview->image.width, 8);
  EXPECT_EQ(preview->image.height, 4);
  const absl::StatusOr<RgbImage> decoded = DecodeImage(preview->image.data, {});
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(*decoded, Grey(8, 4, 200));
}

TEST_F(ImageEncoderTest, ANewerPreviewReplacesOneThatWaits) {
  Occupy();
  const auto slot = std::make_shared<PreviewSlot>();
  for (int step = 1; step <= 5; ++step) {
    encoder_.EncodePreview(slot, step, Grey(4, 4, static_cast<uint8_t>(step)), PreviewPlan(), stream_);
  }
  release_.set_value();
  pool_.Stop();
  const std::optional<PreviewEvent> preview = TakePreview();
  ASSERT_TRUE(preview.has_value());
  EXPECT_EQ(preview->step, 5);
  EXPECT_FALSE(TakePreview().has_value());
}

TEST_F(ImageEncoderTest, OverloadCostsPreviewsNotResults) {
  Occupy();
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(pool_.TryPost([] {}));  // full
  const auto slot = std::make_shared<PreviewSlot>();
  encoder_.EncodePreview(slot, 1, Grey(4, 4, 1), PreviewPlan(), stream_);
  EXPECT_FALSE(slot->newest.has_value());
  std::promise<absl::StatusOr<EncodedImage>> result;
  encoder_.EncodeResult(
      Grey(6, 5, 9), ImageFormat::kPng,
      [&result](absl::StatusOr<EncodedImage> image, absl::Duration) { result.set_value(std::move(image)); });
  release_.set_value();
  std::future<absl::StatusOr<EncodedImage>> future = result.get_future();
  ASSERT_EQ(future.wait_for(kLong), std::future_status::ready);
  const absl::StatusOr<EncodedImage> image = future.get();
  ASSERT_TRUE(image.ok()) << image.status();
  EXPECT_EQ(image->width, 6);
  EXPECT_EQ(image->height, 5);
  pool_.Stop();
  EXPECT_FALSE(TakePreview().has_value());
}

TEST_F(ImageEncoderTest, AStoppedPoolAnswersAtOnce) {
  pool_.Stop();
  absl::Status status;
  encoder_.EncodeResult(
      Grey(1, 1, 1), ImageFormat::kPng,
      [&status](absl::StatusOr<EncodedImage> image, absl::Duration) { status = image.status(); });
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace lancet
