#include "worker/model/vae/vae_decoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <png.h>

#include <memory>
#include <string>

#include "kernels/conv.h"
#include "tests/worker/model/vae/vae_model_testing.h"
#include "worker/model/vae/latent_statistics.h"

namespace lancet {
namespace {

using ::testing::HasSubstr;

constexpr char kNano[] = LANCET_TEST_DATA "/nano/";
constexpr char kDemo[] = LANCET_DEMO_MODEL "/";

// Relative error of the decoded pixels of nano's first golden frame.
double NanoError(const KernelContext& ctx, const StateDict& vae) {
  const auto golden = OpenFile(std::string(kNano) + "golden/vae.safetensors");
  const std::vector<float> z = Floats(*golden, "z");
  auto decoder = VaeDecoder::Load(ctx, vae, {.max_latents = 12});
  EXPECT_TRUE(decoder.ok()) << decoder.status();
  const auto pixels = (*decoder)->Decode(ctx, {z.data(), 12, kLatentChannels}, 3, 4);
  EXPECT_TRUE(pixels.ok()) << pixels.status();
  return RelativeError(*pixels, Floats(*golden, "fp64.decoded_1").data());
}

// Nearer to fp64 than the reference's bf16 arithmetic: sums of a layer are rounded once.
TEST(VaeDecoderTest, MatchesGolden) {
  const auto vae = OpenFile(std::string(kNano) + "Wan2.2_VAE.safetensors");
  for (const CpuIsa isa : {CpuIsa::kPortable, CpuIsa::kAvx2, CpuIsa::kAvx512, CpuIsa::kAvx512Bf16}) {
    const double error = NanoError(*Context(isa), *vae);
    RecordProperty(absl::StrCat("relative_error_", CpuIsaName(isa)), std::to_string(error));
    EXPECT_LT(error, 1.5 * Yardstick(kNano, "vae", "decoded_1", "bf16")) << CpuIsaName(isa);
  }
}

TEST(VaeDecoderTest, LatentStatisticsMatchGolden) {
  const auto tables = OpenFile(std::string(kNano) + "golden/rope_latent_tables.safetensors");
  const LatentStatistics statistics = WanLatentStatistics();
  EXPECT_THAT(Floats(*tables, "vae.mean"), testing::ElementsAreArray(statistics.mean));
  EXPECT_THAT(Floats(*tables, "vae.inv_std"), testing::ElementsAreArray(statistics.inv_std));
}

// Decoder of base width 8 with 4 latent channels.
MemoryStateDict ConformanceNetwork() {
  MemoryStateDict dict;
  AddConv(dict, "conv2", {4, 4, 1, 1, 1});
  AddConv(dict, "decoder.conv1", {32, 4, 3, 3, 3});
  AddResBlock(dict, "decoder.middle.0", 32, 32);
  AddHashed(dict, "decoder.middle.1.norm.gamma", {32, 1, 1});
  AddConv(dict, "decoder.middle.1.to_qkv", {96, 32, 1, 1});
  AddConv(dict, "decoder.middle.1.proj", {32, 32, 1, 1});
  AddResBlock(dict, "decoder.middle.2", 32, 32);
  const int64_t widths[] = {32, 32, 16, 8};
  int64_t in = 32;
  for (int stage = 0; stage < 4; ++stage) {
    const int64_t out = widths[stage];
    const std::string prefix = absl::StrCat("decoder.upsamples.", stage, ".upsamples.");
    for (int block = 0; block < 3; ++block) {
      AddResBlock(dict, absl::StrCat(prefix, block), block == 0 ? in : out, out);
    }
    if (stage < 3) AddConv(dict, prefix + "3.resample.1", {out, out, 3, 3});
    in = out;
  }
  AddHashed(dict, "decoder.head.0.gamma", {8, 1, 1, 1});
  AddConv(dict, "decoder.head.2", {12, 8, 3, 3, 3});
  return dict;
}

TEST(VaeDecoderTest, MatchesConformanceVectors) {
  const auto ctx = Context(CpuIsa::kPortable);
  const MemoryStateDict dict = ConformanceNetwork();
  EXPECT_NEAR(Floats(dict, "conv2.weight")[0], 0.488648, 1e-6);
  auto decoder = VaeDecoder::Load(*ctx, dict,
                                  {.max_latents = 6,
                                   .mean = std::vector<float>(4, 0.0f),
                                   .inv_std = std::vector<float>(4, 1.0f),
                                   .clamp = false});
  ASSERT_TRUE(decoder.ok()) << decoder.status();
  // The first frame of z [4, 3, 2, 3].
  std::vector<float> z(6 * 4);
  for (uint32_t p = 0; p < 6; ++p) {
    for (uint32_t c = 0; c < 4; ++c) z[p * 4 + c] = static_cast<float>(HashValue(1, c * 18 + p));
  }
  EXPECT_NEAR(z[0], -0.65416, 1e-5);
  const auto pixels = (*decoder)->Decode(*ctx, {z.data(), 6, 4}, 2, 3);
  ASSERT_TRUE(pixels.ok()) << pixels.status();
  const auto at = [&](int c, int row, int col) { return (*pixels)[(c * 32 + row) * 48 + col]; };
  // The vectors are of f32; bf16 weights and maps move single values by up to 0.006, their mean by 0.0002.
  constexpr double kBf16Error = 0.012;
  const float corner[] = {-0.29181f, 0.20012f, -0.09261f};
  const float inside[] = {-0.45700f, 1.11882f, 0.73111f};
  for (int c = 0; c < 3; ++c) {
    EXPECT_NEAR(at(c, 0, 0), corner[c], kBf16Error);
    EXPECT_NEAR(at(c, 17, 30), inside[c], kBf16Error);
  }
  double sum = 0;
  for (const float p : *pixels) sum += std::abs(p);
  EXPECT_NEAR(sum / static_cast<double>(pixels->size()), 0.360481, 6e-4);
}

TEST(VaeDecoderTest, ImageOnlyFileGivesTheSamePicture) {
  const auto full = OpenFile(std::string(kNano) + "Wan2.2_VAE.safetensors");
  const MemoryStateDict image_only = ImageOnly(*full);
  const auto ctx = Context();
  auto from_full = VaeDecoder::Load(*ctx, *full, {.max_latents = 12});
  auto from_image_only = VaeDecoder::Load(*ctx, image_only, {.max_latents = 12});
  ASSERT_TRUE(from_full.ok()) << from_full.status();
  ASSERT_TRUE(from_image_only.ok()) << from_image_only.status();
  const std::vector<float> z = Floats(*OpenFile(std::string(kNano) + "golden/vae.safetensors"), "z");
  const ConstMatrixView<float> latents(z.data(), 12, kLatentChannels);
  EXPECT_EQ(*(*from_full)->Decode(*ctx, latents, 3, 4), *(*from_image_only)->Decode(*ctx, latents, 3, 4));
}

// What was decoded before leaves no trace.
TEST(VaeDecoderTest, RepeatsItselfWhateverCameBetween) {
  const auto vae = OpenFile(std::string(kNano) + "Wan2.2_VAE.safetensors");
  const auto ctx = Context();
  auto decoder = VaeDecoder::Load(*ctx, *vae, {.max_latents = 36});
  ASSERT_TRUE(decoder.ok()) << decoder.status();
  const std::vector<float> z = Floats(*OpenFile(std::string(kNano) + "golden/vae.safetensors"), "z");
  const auto decode = [&](int64_t height, int64_t width) {
    return *(*decoder)->Decode(*ctx, {z.data(), height * width, kLatentChannels}, height, width);
  };
  const std::vector<float> first = decode(3, 4);
  for (const auto& [height, width] : {std::pair{1, 1}, {36, 1}, {1, 36}, {6, 6}}) {
    const std::vector<float> other = decode(height, width);
    ASSERT_EQ(other.size(), size_t{3} * 256 * height * width);
    for (const float p : other) ASSERT_TRUE(p >= -1.0f && p <= 1.0f);
  }
  EXPECT_EQ(decode(3, 4), first);
}

RgbImage ReadPng(const std::string& path) {
  png_image png = {};
  png.version = PNG_IMAGE_VERSION;
  EXPECT_NE(png_image_begin_read_from_file(&png, path.c_str()), 0) << path << ": " << png.message;
  png.format = PNG_FORMAT_RGB;
  RgbImage image{static_cast<int32_t>(png.width), static_cast<int32_t>(png.height), {}};
  image.pixels.resize(PNG_IMAGE_SIZE(png));
  EXPECT_NE(png_image_finish_read(&png, nullptr, image.pixels.data(), 0, nullptr), 0) << png.message;
  return image;
}

// Final latents of the demo's traced picture against that picture, which was decoded in f64: bf16 activations
// move a pixel by about a level.
TEST(VaeDecoderTest, DrawsTheDemoPicture) {
  const auto vae = OpenFile(std::string(kDemo) + "Wan2.2_VAE.safetensors");
  const auto golden = OpenFile(std::string(kDemo) + "golden/t2i_256x256.safetensors");
  const std::vector<float> latents = Floats(*golden, "fp64.latents");
  const float* final_latents = latents.data() + latents.size() - 256 * kLatentChannels;
  const RgbImage expected = ReadPng(std::string(kDemo) + "golden/t2i_256x256.png");
  for (const CpuIsa isa : {CpuIsa::kPortable, CpuIsa::kAvx512Bf16}) {
    const auto ctx = Context(isa);
    auto decoder = VaeDecoder::Load(*ctx, *vae, {.max_latents = 256});
    ASSERT_TRUE(decoder.ok()) << decoder.status();
    const auto image = (*decoder)->DecodeToImage(*ctx, {final_latents, 256, kLatentChannels}, 16, 16);
    ASSERT_TRUE(image.ok()) << image.status();
    ASSERT_EQ(image->width, expected.width);
    ASSERT_EQ(image->height, expected.height);
    double sum = 0;
    int worst = 0;
    for (size_t i = 0; i < expected.pixels.size(); ++i) {
      const int difference = std::abs(int{image->pixels[i]} - int{expected.pixels[i]});
      sum += difference;
      worst = std::max(worst, difference);
    }
    const double mean = sum / static_cast<double>(expected.pixels.size());
    RecordProperty(absl::StrCat("mean_levels_", CpuIsaName(ctx->isa())), std::to_string(mean));
    EXPECT_LT(mean, 0.8);
    EXPECT_LE(worst, 24);  // at edges
  }
}

std::string LoadError(const MemoryStateDict& dict) {
  const auto decoder = VaeDecoder::Load(*Context(CpuIsa::kPortable), dict, {.max_latents = 4});
  EXPECT_FALSE(decoder.ok());
  return std::string(decoder.status().message());
}

TEST(VaeDecoderTest, NamesMissingAndOddTensors) {
  const auto nano = OpenFile(std::string(kNano) + "Wan2.2_VAE.safetensors");
  const MemoryStateDict good = ImageOnly(*nano);
  MemoryStateDict dict = good;
  dict.Remove("decoder.middle.2.residual.3.gamma");
  EXPECT_THAT(LoadError(dict), HasSubstr("decoder.middle.2.residual.3.gamma"));
  dict = good;
  dict.Add("decoder.head.2.weight", {12, 8, 1, 1, 1}, std::vector<float>(96));
  EXPECT_THAT(LoadError(dict),
              testing::AllOf(HasSubstr("decoder.head.2.weight"), HasSubstr("[12, 8, 1, 1, 1]")));
  dict = good;
  dict.Add("decoder.head.2.bias", {11}, std::vector<float>(11));
  EXPECT_THAT(LoadError(dict), testing::AllOf(HasSubstr("decoder.head.2.bias"), HasSubstr("12 elements")));
  dict = good;
  dict.Add("conv2.bias", {48}, std::vector<int32_t>(48));
  EXPECT_THAT(LoadError(dict), testing::AllOf(HasSubstr("conv2.bias"), HasSubstr("I32")));
  // Statistics exist for 48 channels only.
  EXPECT_THAT(LoadError(ConformanceNetwork()), HasSubstr("4 latent channels"));
}

TEST(VaeDecoderTest, RefusesLatentsThatDoNotFit) {
  const auto vae = OpenFile(std::string(kNano) + "Wan2.2_VAE.safetensors");
  const auto ctx = Context();
  auto decoder = VaeDecoder::Load(*ctx, *vae, {.max_latents = 12});
  ASSERT_TRUE(decoder.ok()) << decoder.status();
  const std::vector<float> z(20 * kLatentChannels);
  const auto decode = [&](int64_t rows, int64_t cols, int64_t height, int64_t width) {
    return (*decoder)->Decode(*ctx, {z.data(), rows, cols}, height, width).status().code();
  };
  EXPECT_EQ(decode(12, 48, 3, 4), absl::StatusCode::kOk);
  EXPECT_EQ(decode(12, 48, 3, 5), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(decode(12, 47, 3, 4), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(decode(13, 48, 13, 1), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(decode(0, 48, 0, 4), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(VaeDecoder::Load(*ctx, *vae, {.max_latents = 0}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace lancet
