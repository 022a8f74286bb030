// Previews come before the result, of either kind, and look more and more like it.
#include <vector>

#include "gtest/gtest.h"
#include "tests/integration/cluster.h"
#include "tests/integration/requests.h"

namespace lancet {
namespace {

constexpr int kSteps = 30;
constexpr int kEvery = 5;
// A correlation may stand still between two late previews; it must not fall by more than JPEG's noise.
constexpr double kStandstill = 0.01;

class PreviewsTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    auto cluster = Cluster::Start(DemoCluster(2));
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    shared_cluster = cluster->release();
  }
  static void TearDownTestSuite() {
    delete shared_cluster;
    shared_cluster = nullptr;
  }
  void SetUp() override { ASSERT_NE(shared_cluster, nullptr); }

  // Draws with previews and checks what holds for both kinds. `last` is the least correlation of the last
  // preview.
  static void Check(PreviewKind kind, PictureFormat format, double last) {
    GenerationRequest request = MakeRequest(
        "a rocket in the top left, a panda in the top right, on a light blue background", kSteps, 7);
    request.preview_every_steps = kEvery;
    request.preview_kind = kind;
    request.preview_format = format;
    EventLog events;
    const auto result = shared_cluster->client().Generate(request, &events, nullptr);
    ASSERT_TRUE(result.ok()) << result.status() << shared_cluster->Logs();
    const auto picture = Decode(result->image);
    ASSERT_TRUE(picture.ok()) << picture.status();
    // A newer preview may replace one that could not be sent yet, so some may be missing; here nothing is in
    // the way.
    ASSERT_GE(events.previews.size(), 4u);
    std::vector<double> correlations;
    int step = 0;
    for (const PreviewInfo& preview : events.previews) {
      EXPECT_GT(preview.step, step);
      EXPECT_EQ(preview.step % kEvery, 0);
      step = preview.step;
      EXPECT_EQ(preview.image.format, format);
      const auto image = Decode(preview.image);
      ASSERT_TRUE(image.ok()) << image.status();
      ASSERT_EQ(image->width, picture->width);
      ASSERT_EQ(image->height, picture->height);
      correlations.push_back(Correlation(*image, *picture));
    }
    EXPECT_GT(correlations.back(), correlations.front()) << "the last preview is no better than the first";
    EXPECT_GE(correlations.back(), last);
    // From the second on: the first is a smooth average of what could come, which guidance then overshoots
    // for a while.
    for (size_t i = 2; i < correlations.size(); ++i) {
      EXPECT_GT(correlations[i], correlations[i - 1] - kStandstill) << "preview " << i;
    }
  }

  static Cluster* shared_cluster;
};

Cluster* PreviewsTest::shared_cluster = nullptr;

// One colour a block of 16 x 16 pixels can't show edges.
TEST_F(PreviewsTest, LatentRgb) { Check(PreviewKind::kLatentRgb, PictureFormat::kJpeg, 0.7); }

TEST_F(PreviewsTest, VaeIsSharp) { Check(PreviewKind::kVae, PictureFormat::kPng, 0.97); }

TEST_F(PreviewsTest, AreCappedInSizeAndDoNotChangeTheResult) {
  GenerationRequest request = MakeRequest("three waves", 6, 7);
  EventLog plain_events;
  const auto plain = shared_cluster->client().Generate(request, &plain_events, nullptr);
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_TRUE(plain_events.previews.empty());
  request.preview_every_steps = 2;
  request.preview_kind = PreviewKind::kVae;
  request.preview_max_side = 64;
  EventLog events;
  const auto result = shared_cluster->client().Generate(request, &events, nullptr);
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_FALSE(events.previews.empty());
  for (const PreviewInfo& preview : events.previews) EXPECT_EQ(preview.image.width, 64);
  EXPECT_EQ(result->image.data, plain->image.data);
}

}  // namespace
}  // namespace lancet
