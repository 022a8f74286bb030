// The vision tower on a device against plain f64 loops, at sizes that no golden has; the host's encoder,
// which rounds at the same places, is the yardstick.

#include "worker/model/vision/vision_encoder.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/mapped_file.h"
#include "common/safetensors.h"
#include "common/vision_tower.h"
#include "tests/kernels/cuda/cuda_testing.h"
#include "tests/worker/model/vision/tower_ref.h"
#include "worker/collective/local_collective.h"
#include "worker/cuda/cuda_vision_encoder.h"
#include "worker/model/vision/vision_patches.h"

namespace lancet {
namespace {

constexpr char kTower[] = LANCET_TEST_DATA "/nano/Qwen2.5-VL-ViT/";
constexpr int64_t kMaxPatches = 1024;

std::vector<double> Doubles(const TensorView& view) {
  std::vector<double> values;
  for (int64_t i = 0; i < view.num_elements(); ++i) {
    values.push_back(view.dtype == DType::kBf16 ? ToFloat(view.as<bf16>()[i]) : view.as<float>()[i]);
  }
  return values;
}

class CudaVisionEncoderTest : public CudaTest {
 protected:
  void SetUp() override {
    CudaTest::SetUp();
    if (IsSkipped()) return;
    const auto file = MappedFile::Open(absl::StrCat(kTower, "config.json"));
    ASSERT_TRUE(file.ok()) << file.status();
    const auto text = (*file)->bytes();
    const auto config = ParseVisionConfig(
        std::string(reinterpret_cast<const char*>(text.data()), text.size()), "config.json");
    ASSERT_TRUE(config.ok()) << config.status();
    config_ = *config;
    auto tower = SafetensorsFile::Open(absl::StrCat(kTower, "vit.safetensors"));
    ASSERT_TRUE(tower.ok()) << tower.status();
    tower_ = *std::move(tower);
    matmul_ = std::make_unique<MatmulPlans>(*ctx_);
    auto encoder = CudaVisionEncoder::Load(*ctx_, *matmul_, *tower_, config_, kMaxPatches);
    ASSERT_TRUE(encoder.ok()) << encoder.status();
    encoder_ = *std::move(encoder);
  }

  std::vector<bf16> RandomPatches(int64_t count, uint64_t seed) const {
    TestRandom random(seed);
    std::vector<bf16> patches;
    for (int64_t i = 0; i < count * config_.patch_values(); ++i) {
      patches.push_back(ToBf16(random.Uniform(-2.0f, 2.0f)));
    }
    return patches;
  }
  RgbImage RandomPicture(int32_t width, int32_t height, uint64_t seed) const {
    TestRandom random(seed);
    RgbImage image{width, height, {}};
    for (int64_t i = 0; i < int64_t{3} * width * height; ++i) {
      image.pixels.push_back(static_cast<uint8_t>(random.Bits()));
    }
    return image;
  }

  std::vector<bf16> Encode(const std::vector<bf16>& patches, const std::vector<VisionGrid>& grids) {
    const int64_t rows = static_cast<int64_t>(patches.size()) / config_.patch_values();
    const auto out = Poisoned<bf16>(rows / 4 * config_.out_hidden_size);
    const absl::Status status =
        encoder_->Encode({patches.data(), rows, config_.patch_values()}, grids, out.data());
    EXPECT_TRUE(status.ok()) << status;
    return ToHost(out);
  }
  std::vector<bf16> EncodePicture(const RgbImage& picture) {
    const auto out = Poisoned<bf16>(encoder_->TokensOf(picture) * config_.out_hidden_size);
    const absl::Status status = encoder_->EncodePicture(picture, out.data());
    EXPECT_TRUE(status.ok()) << status;
    return ToHost(out);
  }
  std::vector<bf16> EncodeOnHost(const std::vector<bf16>& patches, const std::vector<VisionGrid>& grids) {
    auto ctx = KernelContext::CreateCpu({.threads = 2}).value();
    ctx->BindCallingThread();
    auto encoder = VisionEncoder::Load(*ctx, *tower_, config_, 0, 1, {.max_patches = kMaxPatches}).value();
    auto collective = SingleRankCollective::Create(static_cast<size_t>(encoder->reduce_capacity())).value();
    const int64_t rows = static_cast<int64_t>(patches.size()) / config_.patch_values();
    std::vector<bf16> out(rows / 4 * config_.out_hidden_size);
    const absl::Status status =
        encoder->Encode({patches.data(), rows, config_.patch_values()}, grids, *collective, absl::Minutes(1),
                        {out.data(), rows / 4, config_.out_hidden_size});
    EXPECT_TRUE(status.ok()) << status;
    return out;
  }
  std::vector<double> Reference(const std::vector<bf16>& patches,
                                const std::vector<VisionGrid>& grids) const {
    TowerWeights weights;
    for (const VisionTensor& tensor : VisionTensors(config_)) {
      weights[tensor.name] = Doubles(tower_->Get(tensor.name).value());
    }
    std::vector<double> wide;
    for (const bf16 x : patches) wide.push_back(ToFloat(x));
    return RunTowerRef(config_, weights, wide, grids, /*rounded_table=*/true);
  }

  VisionConfig config_;
  std::unique_ptr<SafetensorsFile> tower_;
  std::unique_ptr<MatmulPlans> matmul_;
  std::unique_ptr<CudaVisionEncoder> encoder_;
};

TEST_F(CudaVisionEncoderTest, FollowsTheReferenceAtOddSizes) {
  const std::vector<std::vector<VisionGrid>> groups = {{{1, 2, 2}},
                                                       {{1, 2, 34}},
                                                       {{1, 34, 2}},
                                                       {{1, 12, 20}},
                                                       {{1, 18, 26}},
                                                       {{2, 10, 14}},
                                                       {{1, 4, 18}, {3, 6, 10}},
                                                       {{1, 2, 2}, {1, 8, 8}, {1, 2, 6}},
                                                       {{1, 32, 32}}};
  uint64_t seed = 1;
  for (const std::vector<VisionGrid>& grids : groups) {
    int64_t count = 0;
    for (const VisionGrid& grid : grids) count += grid.patches();
    const std::vector<bf16> patches = RandomPatches(count, seed++);
    const std::vector<double> exact = Reference(patches, grids);
    const double ours = RelativeError(Encode(patches, grids), exact);
    const double host = RelativeError(EncodeOnHost(patches, grids), exact);
    EXPECT_LT(ours, 1.25 * host + 1e-4) << grids[0].t << "x" << grids[0].h << "x" << grids[0].w;
  }
}

TEST_F(CudaVisionEncoderTest, PicturesAndCutPatchesAreTheSame) {
  const RgbImage picture = RandomPicture(28 * 9, 28 * 6, 40);
  const auto cut = PicturePatches::Create(config_, picture);
  ASSERT_TRUE(cut.ok()) << cut.status();
  const int64_t count = cut->grid().patches();
  std::vector<bf16> patches(count * config_.patch_values());
  for (int64_t i = 0; i < count; ++i) cut->Fill(i, patches.data() + i * config_.patch_values());
  EXPECT_EQ(EncodePicture(picture), Encode(patches, {cut->grid()}));
}

// To the bit, whatever was encoded before and however large the call is.
TEST_F(CudaVisionEncoderTest, AClipDoesNotDependOnOthers) {
  const std::vector<VisionGrid> grids = {{1, 10, 14}, {1, 6, 22}, {1, 24, 16}};
  std::vector<bf16> together;
  std::vector<bf16> alone;
  for (size_t i = 0; i < grids.size(); ++i) {
    const std::vector<bf16> patches = RandomPatches(grids[i].patches(), 50 + i);
    together.insert(together.end(), patches.begin(), patches.end());
    const std::vector<bf16> tokens = Encode(patches, {grids[i]});
    alone.insert(alone.end(), tokens.begin(), tokens.end());
  }
  EXPECT_EQ(Encode(together, grids), alone);
  const RgbImage first = RandomPicture(28 * 4, 28 * 3, 60);
  const std::vector<bf16> before = EncodePicture(first);
  EncodePicture(RandomPicture(28 * 16, 28 * 16, 61));
  EXPECT_EQ(EncodePicture(first), before);
}

TEST_F(CudaVisionEncoderTest, RefusesWhatDoesNotFit) {
  const auto out = Poisoned<bf16>(1);
  const std::vector<bf16> patches = RandomPatches(4, 70);
  const ConstMatrixView<bf16> view(patches.data(), 4, config_.patch_values());
  const std::vector<VisionGrid> odd = {{1, 1, 4}};
  const std::vector<VisionGrid> large = {{1, 1024, 1024}};
  const std::vector<VisionGrid> other = {{1, 4, 4}};
  for (const auto& grids : {odd, large, other}) {
    EXPECT_EQ(encoder_->Encode(view, grids, out.data()).code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(encoder_->EncodePicture(RandomPicture(30, 28, 71), out.data()).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(encoder_->EncodePicture(RandomPicture(28 * 17, 28 * 16, 72), out.data()).code(),
            absl::StatusCode::kInvalidArgument);
  VisionConfig unusual = config_;
  unusual.head_dim = 40;
  EXPECT_EQ(CudaVisionEncoder::Load(*ctx_, *matmul_, *tower_, unusual, 16).status().code(),
            absl::StatusCode::kUnimplemented);
  EXPECT_EQ(CudaVisionEncoder::Load(*ctx_, *matmul_, *tower_, config_, 0).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace lancet
