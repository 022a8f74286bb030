// Both halves of the autoencoder on a device against the host's f32 run, at sizes that no golden has. The
// yardstick is what the reference's own bf16 arithmetic costs on the golden of the same model.

#include <cmath>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/model_config.h"
#include "common/safetensors.h"
#include "kernels/vae_ops.h"
#include "tests/kernels/cuda/cuda_testing.h"
#include "worker/cuda/cuda_vae_decoder.h"
#include "worker/cuda/cuda_vae_encoder.h"

namespace lancet {
namespace {

constexpr char kNano[] = LANCET_TEST_DATA "/nano/";
constexpr int64_t kMaxLatents = 64;
// Contents differ, so errors do, and the host rounds its maps to bf16 as well: three times the golden's. Real
// mistakes cost tens.
constexpr double kFactor = 3.0;

double RelativeErrorOf(const std::vector<float>& got, const std::vector<float>& expected) {
  if (got.size() != expected.size()) return INFINITY;
  double difference = 0;
  double norm = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    difference += (double{got[i]} - expected[i]) * (double{got[i]} - expected[i]);
    norm += double{expected[i]} * expected[i];
  }
  const double error = std::sqrt(difference / norm);
  return std::isfinite(error) ? error : INFINITY;
}

class CudaVaeTest : public CudaTest {
 protected:
  void SetUp() override {
    CudaTest::SetUp();
    if (IsSkipped()) return;
    auto file = SafetensorsFile::Open(absl::StrCat(kNano, "Wan2.2_VAE.safetensors"));
    ASSERT_TRUE(file.ok()) << file.status();
    vae_ = *std::move(file);
    matmul_ = std::make_unique<MatmulPlans>(*ctx_);
    layers_ = std::make_unique<CudaVaeLayers>(*ctx_, *matmul_);
    auto decoder = CudaVaeDecoder::Load(*ctx_, *layers_, *vae_, {.max_latents = kMaxLatents});
    ASSERT_TRUE(decoder.ok()) << decoder.status();
    decoder_ = *std::move(decoder);
    auto encoder = CudaVaeEncoder::Load(*ctx_, *layers_, *vae_, {.max_latents = kMaxLatents});
    ASSERT_TRUE(encoder.ok()) << encoder.status();
    encoder_ = *std::move(encoder);
    cpu_ = KernelContext::CreateCpu({.threads = 2, .max_isa = CpuIsa::kAvx2}).value();
    cpu_->BindCallingThread();
  }

  double Limit(const char* quantity) const {
    std::ifstream stream(absl::StrCat(kNano, "golden/errors.json"));
    return kFactor * nlohmann::json::parse(stream)["vae"][quantity]["bf16"][0].get<double>();
  }
  // Smooth colours with some noise, like pictures.
  static RgbImage RandomPicture(int64_t latent_width, int64_t latent_height, uint64_t seed) {
    TestRandom random(seed);
    RgbImage image{static_cast<int32_t>(latent_width * kPixelsPerLatent),
                   static_cast<int32_t>(latent_height * kPixelsPerLatent),
                   {}};
    const float phase = random.Uniform(0.0f, 6.0f);
    for (int32_t y = 0; y < image.height; ++y) {
      for (int32_t x = 0; x < image.width; ++x) {
        for (int c = 0; c < 3; ++c) {
          const float wave = std::sin(phase + 0.05f * static_cast<float>(x + c * y));
          image.pixels.push_back(static_cast<uint8_t>(128.0f + 90.0f * wave + random.Uniform(-30.0f, 30.0f)));
        }
      }
    }
    return image;
  }
  std::vector<float> EncodePicture(const RgbImage& image, const std::vector<float>& noise = {}) {
    const int64_t rows = image.width / kPixelsPerLatent * (image.height / kPixelsPerLatent);
    const auto latents = Poisoned<bf16>(rows * kLatentChannels);
    const absl::Status status = encoder_->EncodePicture(image, noise, latents.data());
    EXPECT_TRUE(status.ok()) << status;
    std::vector<float> wide;
    for (const bf16 x : ToHost(latents)) wide.push_back(ToFloat(x));
    return wide;
  }

  std::unique_ptr<SafetensorsFile> vae_;
  std::unique_ptr<MatmulPlans> matmul_;
  std::unique_ptr<CudaVaeLayers> layers_;
  std::unique_ptr<CudaVaeDecoder> decoder_;
  std::unique_ptr<CudaVaeEncoder> encoder_;
  std::unique_ptr<KernelContext> cpu_;
};

constexpr std::pair<int64_t, int64_t> kSizes[] = {{1, 1}, {1, 7}, {9, 1},  {3, 5},
                                                  {5, 3}, {8, 8}, {2, 32}, {13, 4}};

TEST_F(CudaVaeTest, EncodesLikeTheHostAtOddSizes) {
  auto host = VaeEncoder::Load(*cpu_, *vae_, {.max_latents = kMaxLatents});
  ASSERT_TRUE(host.ok()) << host.status();
  uint64_t seed = 1;
  for (const auto& [width, height] : kSizes) {
    SCOPED_TRACE(absl::StrCat(width, " x ", height, " latents"));
    const RgbImage image = RandomPicture(width, height, seed++);
    const auto pixels = ImageToPixels(image);
    const auto expected = (*host)->Moments(*cpu_, *pixels, image.height, image.width);
    ASSERT_TRUE(expected.ok()) << expected.status();
    const auto got = encoder_->Moments(*cpu_, *pixels, image.height, image.width);
    ASSERT_TRUE(got.ok()) << got.status();
    EXPECT_LT(RelativeErrorOf(got->mean, expected->mean), Limit("mu_1"));
    EXPECT_LT(RelativeErrorOf(got->log_variance, expected->log_variance), Limit("logvar_1"));
    std::vector<float> noise;
    TestRandom random(seed);
    for (size_t i = 0; i < expected->mean.size(); ++i) noise.push_back(random.Uniform(-2.0f, 2.0f));
    const auto quiet = (*host)->Encode(*cpu_, image);
    const auto noisy = (*host)->Encode(*cpu_, image, noise);
    ASSERT_TRUE(quiet.ok() && noisy.ok());
    EXPECT_LT(RelativeErrorOf(EncodePicture(image), *quiet), Limit("encoded_1"));
    EXPECT_LT(RelativeErrorOf(EncodePicture(image, noise), *noisy), Limit("encoded_1"));
  }
}

TEST_F(CudaVaeTest, DecodesLikeTheHostAtOddSizes) {
  auto host = VaeDecoder::Load(*cpu_, *vae_, {.max_latents = kMaxLatents});
  ASSERT_TRUE(host.ok()) << host.status();
  uint64_t seed = 30;
  for (const auto& [width, height] : kSizes) {
    SCOPED_TRACE(absl::StrCat(width, " x ", height, " latents"));
    TestRandom random(seed++);
    std::vector<float> latents(width * height * kLatentChannels);
    for (float& v : latents) v = RoundToBf16(random.Uniform(-2.0f, 2.0f));
    const ConstMatrixView<float> view(latents.data(), width * height, kLatentChannels);
    const auto expected = (*host)->Decode(*cpu_, view, height, width);
    const auto got = decoder_->Decode(*cpu_, view, height, width);
    ASSERT_TRUE(expected.ok() && got.ok()) << expected.status() << got.status();
    EXPECT_LT(RelativeErrorOf(*got, *expected), Limit("decoded_1"));
  }
}

// Both halves use the same memory: what one leaves there must not reach the other.
TEST_F(CudaVaeTest, APictureDoesNotDependOnWhatRanBefore) {
  const RgbImage image = RandomPicture(3, 5, 60);
  const std::vector<float> before = EncodePicture(image);
  std::vector<float> latents(15 * kLatentChannels);
  TestRandom random(61);
  for (float& v : latents) v = RoundToBf16(random.Uniform(-2.0f, 2.0f));
  const ConstMatrixView<float> view(latents.data(), 15, kLatentChannels);
  const auto decoded = decoder_->Decode(*cpu_, view, 5, 3);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EncodePicture(RandomPicture(8, 8, 62));
  EXPECT_EQ(EncodePicture(image), before);
  EncodePicture(RandomPicture(32, 2, 63));
  const auto again = decoder_->Decode(*cpu_, view, 5, 3);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(*again, *decoded);
}

TEST_F(CudaVaeTest, RefusesWhatDoesNotFit) {
  const auto latents = Poisoned<bf16>(1);
  RgbImage odd = RandomPicture(2, 2, 70);
  odd.width = 31;
  EXPECT_EQ(encoder_->EncodePicture(odd, {}, latents.data()).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(encoder_->EncodePicture(RandomPicture(9, 8, 71), {}, latents.data()).code(),
            absl::StatusCode::kInvalidArgument);
  RgbImage short_one = RandomPicture(2, 2, 72);
  short_one.pixels.pop_back();
  EXPECT_EQ(encoder_->EncodePicture(short_one, {}, latents.data()).code(),
            absl::StatusCode::kInvalidArgument);
  const std::vector<float> noise(5);
  EXPECT_EQ(encoder_->EncodePicture(RandomPicture(2, 2, 73), noise, latents.data()).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CudaVaeEncoder::Load(*ctx_, *layers_, *vae_, {.max_latents = 0}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(
      CudaVaeEncoder::Load(*ctx_, *layers_, *vae_, {.max_latents = 8, .mean = {0.0f}, .inv_std = {1.0f}})
          .status()
          .code(),
      absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace lancet
