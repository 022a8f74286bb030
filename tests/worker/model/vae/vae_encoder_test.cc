#include "worker/model/vae/vae_encoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "common/model_config.h"
#include "kernels/conv.h"
#include "kernels/vae_ops.h"
#include "tests/worker/model/vae/vae_model_testing.h"

namespace lancet {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr char kNano[] = LANCET_TEST_DATA "/nano/";
constexpr int64_t kHeight = 48;  // of nano's golden frame
constexpr int64_t kWidth = 64;
constexpr int64_t kLatents = 12;

RgbImage GoldenFrame() {
  const auto golden = OpenFile(std::string(kNano) + "golden/vae.safetensors");
  const TensorView frames = *golden->Get("frames");
  RgbImage image{kWidth, kHeight, {}};
  image.pixels.assign(frames.as<uint8_t>(), frames.as<uint8_t>() + 3 * kHeight * kWidth);
  return image;
}

// [channels, pixels] -> [pixels, channels].
std::vector<float> Transposed(const std::vector<float>& values, size_t channels) {
  std::vector<float> out(values.size());
  const size_t pixels = values.size() / channels;
  for (size_t c = 0; c < channels; ++c) {
    for (size_t p = 0; p < pixels; ++p) out[p * channels + c] = values[c * pixels + p];
  }
  return out;
}

// Relative errors of moments and latents are no more than half above those of the reference's bf16
// arithmetic.
void ExpectNano(const KernelContext& ctx) {
  const auto vae = OpenFile(std::string(kNano) + "Wan2.2_VAE.safetensors");
  const auto golden = OpenFile(std::string(kNano) + "golden/vae.safetensors");
  auto encoder = VaeEncoder::Load(ctx, *vae, {.max_latents = kLatents});
  ASSERT_TRUE(encoder.ok()) << encoder.status();
  const auto pixels = ImageToPixels(GoldenFrame());
  const auto moments = (*encoder)->Moments(ctx, *pixels, kHeight, kWidth);
  ASSERT_TRUE(moments.ok()) << moments.status();
  const auto latents = (*encoder)->Encode(ctx, GoldenFrame());
  ASSERT_TRUE(latents.ok()) << latents.status();
  const auto expect = [&](const std::vector<float>& got, const char* quantity, bool planes) {
    std::vector<float> expected = Floats(*golden, absl::StrCat("fp64.", quantity));
    if (planes) expected = Transposed(expected, kLatentChannels);
    ASSERT_EQ(got.size(), expected.size());
    EXPECT_LT(RelativeError(got, expected.data()), 1.5 * Yardstick(kNano, "vae", quantity, "bf16"))
        << quantity;
  };
  expect(moments->mean, "mu_1", true);
  expect(moments->log_variance, "logvar_1", true);
  expect(*latents, "encoded_1", false);
}

TEST(VaeEncoderTest, MatchesGolden) {
  for (const CpuIsa isa : {CpuIsa::kPortable, CpuIsa::kAvx2, CpuIsa::kAvx512, CpuIsa::kAvx512Bf16}) {
    SCOPED_TRACE(CpuIsaName(isa));
    ExpectNano(*Context(isa));
  }
}

// Encoder of base width 8 with 4 latent channels, with a time_conv that is too small to be read.
MemoryStateDict ConformanceEncoder() {
  MemoryStateDict dict;
  AddConv(dict, "encoder.conv1", {8, 12, 3, 3, 3});
  const int64_t widths[] = {8, 16, 32, 32};
  int64_t in = 8;
  for (int stage = 0; stage < 4; ++stage) {
    const int64_t out = widths[stage];
    const std::string prefix = absl::StrCat("encoder.downsamples.", stage, ".downsamples.");
    for (int block = 0; block < 2; ++block) {
      AddResBlock(dict, absl::StrCat(prefix, block), block == 0 ? in : out, out);
    }
    if (stage < 3) AddConv(dict, prefix + "2.resample.1", {out, out, 3, 3});
    if (stage == 1 || stage == 2) AddConv(dict, prefix + "2.time_conv", {1, 1, 1, 1, 1});
    in = out;
  }
  AddResBlock(dict, "encoder.middle.0", 32, 32);
  AddHashed(dict, "encoder.middle.1.norm.gamma", {32, 1, 1});
  AddConv(dict, "encoder.middle.1.to_qkv", {96, 32, 1, 1});
  AddConv(dict, "encoder.middle.1.proj", {32, 32, 1, 1});
  AddResBlock(dict, "encoder.middle.2", 32, 32);
  AddHashed(dict, "encoder.head.0.gamma", {32, 1, 1, 1});
  AddConv(dict, "encoder.head.2", {8, 32, 3, 3, 3});
  AddConv(dict, "conv1", {8, 8, 1, 1, 1});
  return dict;
}

TEST(VaeEncoderTest, MatchesConformanceVectors) {
  const auto ctx = Context(CpuIsa::kPortable);
  const MemoryStateDict dict = ConformanceEncoder();
  EXPECT_NEAR(HashValue(3410522421u, 0), 0.334736, 1e-6);
  auto encoder = VaeEncoder::Load(
      *ctx, dict,
      {.max_latents = 6, .mean = std::vector<float>(4, 0.0f), .inv_std = std::vector<float>(4, 1.0f)});
  ASSERT_TRUE(encoder.ok()) << encoder.status();
  // The first frame of x [3, 9, 32, 48].
  std::vector<float> x(3 * 32 * 48);
  for (uint32_t c = 0; c < 3; ++c) {
    for (uint32_t p = 0; p < 32 * 48; ++p) {
      x[c * 32 * 48 + p] = static_cast<float>(HashValue(2, c * 9 * 32 * 48 + p));
    }
  }
  EXPECT_NEAR(x[0], -0.39574, 1e-5);
  const auto moments = (*encoder)->Moments(*ctx, x, 32, 48);
  ASSERT_TRUE(moments.ok()) << moments.status();
  const float mean[] = {0.02585f, -0.09939f, 0.13941f, 0.23123f};           // of latent (0, 0)
  const float log_variance[] = {-0.04393f, 0.41353f, -0.14408f, 0.53336f};  // of latent (1, 2)
  for (int c = 0; c < 4; ++c) {
    // The vectors are of f32; bf16 weights and maps move them by up to 0.003.
    EXPECT_NEAR(moments->mean[c], mean[c], 0.006);
    EXPECT_NEAR(moments->log_variance[5 * 4 + c], log_variance[c], 0.006);
  }
  // Without statistics latents are the means, which are bf16 already.
  const auto latents = (*encoder)->Encode(*ctx, x, 32, 48);
  ASSERT_TRUE(latents.ok());
  EXPECT_EQ(*latents, moments->mean);
}

TEST(VaeEncoderTest, AddsTheNoiseOfThePosteriorAfterNormalising) {
  const auto vae = OpenFile(std::string(kNano) + "Wan2.2_VAE.safetensors");
  const auto ctx = Context();
  auto encoder = VaeEncoder::Load(*ctx, *vae, {.max_latents = kLatents});
  ASSERT_TRUE(encoder.ok()) << encoder.status();
  const auto pixels = ImageToPixels(GoldenFrame());
  const auto moments = (*encoder)->Moments(*ctx, *pixels, kHeight, kWidth);
  const auto mean = (*encoder)->Encode(*ctx, *pixels, kHeight, kWidth);
  std::vector<float> noise(kLatents * kLatentChannels);
  for (size_t i = 0; i < noise.size(); ++i) noise[i] = static_cast<float>(i % 7) - 3.0f;
  const auto noisy = (*encoder)->Encode(*ctx, *pixels, kHeight, kWidth, noise);
  ASSERT_TRUE(noisy.ok()) << noisy.status();
  for (size_t i = 0; i < noise.size(); ++i) {
    EXPECT_NEAR((*noisy)[i], (*mean)[i] + noise[i] * std::exp(moments->log_variance[i] / 2), 1e-5);
  }
  noise.pop_back();
  EXPECT_EQ((*encoder)->Encode(*ctx, *pixels, kHeight, kWidth, noise).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(VaeEncoderTest, ImageOnlyFileGivesTheSameLatents) {
  const auto full = OpenFile(std::string(kNano) + "Wan2.2_VAE.safetensors");
  const MemoryStateDict image_only = ImageOnly(*full);
  const auto ctx = Context();
  auto from_full = VaeEncoder::Load(*ctx, *full, {.max_latents = kLatents});
  auto from_image_only = VaeEncoder::Load(*ctx, image_only, {.max_latents = kLatents});
  ASSERT_TRUE(from_full.ok()) << from_full.status();
  ASSERT_TRUE(from_image_only.ok()) << from_image_only.status();
  EXPECT_EQ(*(*from_full)->Encode(*ctx, GoldenFrame()), *(*from_image_only)->Encode(*ctx, GoldenFrame()));
}

// What was encoded before leaves no trace.
TEST(VaeEncoderTest, RepeatsItselfWhateverCameBetween) {
  const auto vae = OpenFile(std::string(kNano) + "Wan2.2_VAE.safetensors");
  const auto ctx = Context();
  auto encoder = VaeEncoder::Load(*ctx, *vae, {.max_latents = 36});
  ASSERT_TRUE(encoder.ok()) << encoder.status();
  const std::vector<float> first = *(*encoder)->Encode(*ctx, GoldenFrame());
  for (const auto& [rows, cols] : {std::pair{1, 1}, {36, 1}, {1, 36}, {6, 6}}) {
    const std::vector<float> pixels(3 * 256 * rows * cols, 0.25f);
    const auto latents = (*encoder)->Encode(*ctx, pixels, 16 * rows, 16 * cols);
    ASSERT_TRUE(latents.ok()) << latents.status();
    ASSERT_EQ(latents->size(), static_cast<size_t>(rows * cols * kLatentChannels));
    for (const float z : *latents) ASSERT_TRUE(std::isfinite(z));
  }
  EXPECT_EQ(*(*encoder)->Encode(*ctx, GoldenFrame()), first);
}

absl::Status LoadError(const MemoryStateDict& dict) {
  return VaeEncoder::Load(*Context(CpuIsa::kPortable), dict, {.max_latents = 4}).status();
}

TEST(VaeEncoderTest, NamesMissingAndOddTensors) {
  const auto nano = OpenFile(std::string(kNano) + "Wan2.2_VAE.safetensors");
  const MemoryStateDict good = ImageOnly(*nano);
  MemoryStateDict dict = good;
  dict.Remove("encoder.conv1.weight");
  EXPECT_EQ(LoadError(dict).code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(LoadError(dict).message()), HasSubstr("encoder.conv1.weight"));
  dict = good;
  dict.Remove("encoder.downsamples.3.downsamples.1.residual.3.gamma");
  EXPECT_THAT(std::string(LoadError(dict).message()),
              HasSubstr("encoder.downsamples.3.downsamples.1.residual.3.gamma"));
  dict = good;
  dict.Add("conv1.bias", {95}, std::vector<float>(95));
  EXPECT_THAT(std::string(LoadError(dict).message()),
              AllOf(HasSubstr("conv1.bias"), HasSubstr("96 elements")));
  // Statistics exist for 48 channels only.
  EXPECT_THAT(std::string(LoadError(ConformanceEncoder()).message()), HasSubstr("4 latent channels"));
}

TEST(VaeEncoderTest, RefusesPicturesThatDoNotFit) {
  const auto vae = OpenFile(std::string(kNano) + "Wan2.2_VAE.safetensors");
  const auto ctx = Context();
  auto encoder = VaeEncoder::Load(*ctx, *vae, {.max_latents = 4});
  ASSERT_TRUE(encoder.ok()) << encoder.status();
  const std::vector<float> pixels(3 * 64 * 64);
  const auto encode = [&](size_t values, int64_t height, int64_t width) {
    return (*encoder)->Encode(*ctx, absl::MakeConstSpan(pixels).first(values), height, width).status();
  };
  EXPECT_TRUE(encode(3 * 32 * 32, 32, 32).ok());
  for (const auto& [values, height, width] : {std::tuple{3 * 32 * 32, 32, 31},
                                              {3 * 24 * 32, 24, 32},
                                              {3 * 32 * 32 - 1, 32, 32},
                                              {0, 0, 16},
                                              {0, -16, 16},
                                              {3 * 16 * 80, 16, 80}}) {
    EXPECT_EQ(encode(values, height, width).code(), absl::StatusCode::kInvalidArgument)
        << height << " x " << width;
  }
  EXPECT_THAT(std::string(encode(3 * 24 * 32, 24, 32).message()),
              AllOf(HasSubstr("height 24"), HasSubstr("multiples of 16")));
  EXPECT_EQ((*encoder)->Encode(*ctx, RgbImage{16, 16, {1, 2}}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(VaeEncoder::Load(*ctx, *vae, {.max_latents = 0}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace lancet
