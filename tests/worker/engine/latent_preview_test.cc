#include "worker/engine/latent_preview.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "common/noise.h"
#include "common/safetensors.h"

namespace lancet {
namespace {

LatentRgb SomeMap() {
  LatentRgb map;
  for (int colour = 0; colour < 3; ++colour) {
    for (int c = 0; c < kLatentChannels; ++c) {
      map.weight[colour][c] = 0.02f * std::sin(static_cast<float>(7 * colour + 3 * c));
    }
    map.bias[colour] = 0.1f * static_cast<float>(colour);
  }
  return map;
}

std::vector<float> Normals(int64_t count) {
  std::vector<float> values(count);
  FillNormalNoise(1, count, 0, absl::MakeSpan(values));
  return values;
}

TEST(LatentPreviewTest, FitRecoversALinearMap) {
  constexpr int64_t kRows = 200;
  const LatentRgb map = SomeMap();
  const std::vector<float> latents = Normals(kRows * kLatentChannels);
  std::vector<float> colours(kRows * 3);
  for (int64_t r = 0; r < kRows; ++r) {
    for (int colour = 0; colour < 3; ++colour) {
      colours[r * 3 + colour] = map.bias[colour];
      for (int c = 0; c < kLatentChannels; ++c) {
        colours[r * 3 + colour] += map.weight[colour][c] * latents[r * kLatentChannels + c];
      }
    }
  }
  const auto fit = FitLatentRgb({latents.data(), kRows, kLatentChannels}, {colours.data(), kRows, 3});
  ASSERT_TRUE(fit.ok()) << fit.status();
  EXPECT_GT(fit->quality.r2, 0.99999);
  EXPECT_LT(fit->quality.rmse, 1e-3);
  for (int colour = 0; colour < 3; ++colour) {
    // The ridge pulls weights towards zero by about its relative size.
    EXPECT_NEAR(fit->map.bias[colour], map.bias[colour], 1e-4);
    for (int c = 0; c < kLatentChannels; ++c) {
      EXPECT_NEAR(fit->map.weight[colour][c], map.weight[colour][c], 1e-4);
    }
  }
}

TEST(LatentPreviewTest, FitToColoursThatLatentsSayNothingAboutIsTheirMean) {
  constexpr int64_t kRows = 4000;
  const std::vector<float> latents = Normals(kRows * kLatentChannels);
  std::vector<float> colours(kRows * 3, 0.0f);
  for (int64_t r = 0; r < kRows; ++r) colours[r * 3] = r % 2 == 0 ? 0.5f : -0.1f;
  const auto fit = FitLatentRgb({latents.data(), kRows, kLatentChannels}, {colours.data(), kRows, 3});
  ASSERT_TRUE(fit.ok()) << fit.status();
  EXPECT_LT(fit->quality.r2, 0.05);
  EXPECT_NEAR(fit->map.bias[0], 0.2f, 0.02);
  EXPECT_NEAR(fit->map.bias[1], 0.0f, 1e-9);
}

TEST(LatentPreviewTest, FitRefusesBadValues) {
  std::vector<float> latents = Normals(60 * kLatentChannels);
  std::vector<float> colours(60 * 3, 0.5f);
  const auto code = [&](int64_t rows) {
    return FitLatentRgb({latents.data(), rows, kLatentChannels}, {colours.data(), rows, 3}).status().code();
  };
  EXPECT_EQ(code(60), absl::StatusCode::kOk);
  EXPECT_EQ(code(48), absl::StatusCode::kInvalidArgument);
  colours[7] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(code(60), absl::StatusCode::kInvalidArgument);
  colours[7] = 0.5f;
  latents[100] = std::numeric_limits<float>::infinity();
  EXPECT_EQ(code(60), absl::StatusCode::kInvalidArgument);
}

TEST(LatentPreviewTest, AppliesTheMapRowByRow) {
  LatentRgb map;
  map.weight[0][5] = 1.0f;
  map.bias = {0.0f, -1.0f, 1.0f};
  std::vector<float> latents(6 * kLatentChannels, 0.0f);
  latents[4 * kLatentChannels + 5] = 1.0f;   // row 1, column 1
  latents[0 * kLatentChannels + 5] = -9.0f;  // clamped
  const auto image = LatentsToRgb(map, {latents.data(), 6, kLatentChannels}, 2, 3);
  ASSERT_TRUE(image.ok()) << image.status();
  EXPECT_EQ(image->width, 3);
  EXPECT_EQ(image->height, 2);
  EXPECT_EQ(image->pixels, (std::vector<uint8_t>{0, 0, 255, 128, 0, 255, 128, 0, 255,  //
                                                 128, 0, 255, 255, 0, 255, 128, 0, 255}));
  EXPECT_EQ(LatentsToRgb(map, {latents.data(), 6, kLatentChannels}, 2, 4).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(LatentPreviewTest, BlockMeansAverageSixteenBySixteen) {
  std::vector<float> planes(3 * 32 * 16, 0.0f);
  planes[512 + 17 * 16 + 3] = 256.0f;  // green, second block
  std::vector<float> colours(6, -1.0f);
  ASSERT_TRUE(BlockMeans(planes, 2, 1, {colours.data(), 2, 3}).ok());
  EXPECT_EQ(colours, (std::vector<float>{0, 0, 0, 0, 1, 0}));
  EXPECT_FALSE(BlockMeans(planes, 1, 1, {colours.data(), 1, 3}).ok());
}

// Without any coefficients given, previews of the demo's finished latents come close to its colours.
TEST(LatentPreviewTest, FitFromTheDecoderAloneSuitsRealLatents) {
  auto ctx = KernelContext::CreateCpu({.threads = 2});
  ASSERT_TRUE(ctx.ok());
  (*ctx)->BindCallingThread();
  auto vae = SafetensorsFile::Open(std::string(LANCET_DEMO_MODEL) + "/Wan2.2_VAE.safetensors");
  auto golden = SafetensorsFile::Open(std::string(LANCET_DEMO_MODEL) + "/golden/t2i_256x256.safetensors");
  ASSERT_TRUE(vae.ok() && golden.ok());
  auto decoder = VaeDecoder::Load(**ctx, **vae, {.max_latents = 256});
  ASSERT_TRUE(decoder.ok()) << decoder.status();
  const auto fit = FitLatentRgbFromDecoder(**ctx, **decoder);
  ASSERT_TRUE(fit.ok()) << fit.status();
  RecordProperty("fit_r2", std::to_string(fit->quality.r2));

  const TensorView trace = *(*golden)->Get("fp64.latents");  // [steps + 1, 256, 48]
  const float* last = trace.as<float>() + trace.num_elements() - 256 * kLatentChannels;
  const ConstMatrixView<float> latents(last, 256, kLatentChannels);
  const auto planes = (*decoder)->Decode(**ctx, latents, 16, 16);
  ASSERT_TRUE(planes.ok()) << planes.status();
  std::vector<float> colours(256 * 3);
  ASSERT_TRUE(BlockMeans(*planes, 16, 16, {colours.data(), 256, 3}).ok());
  const auto quality = MeasureLatentRgb(fit->map, latents, {colours.data(), 256, 3});
  ASSERT_TRUE(quality.ok()) << quality.status();
  RecordProperty("picture_r2", std::to_string(quality->r2));
  EXPECT_GT(quality->r2, 0.6);
}

}  // namespace
}  // namespace lancet
