#include "worker/model/vision/vision_encoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <cmath>
#include <functional>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/mapped_file.h"
#include "common/safetensors.h"
#include "common/vision_tower.h"
#include "tests/testing/in_memory_file.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/tensor_file.h"
#include "tests/worker/model/vision/tower_ref.h"
#include "worker/collective/local_collective.h"
#include "worker/collective/shm_collective.h"
#include "worker/model/vision/vision_patches.h"

namespace lancet {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr char kDemoConfig[] = LANCET_DEMO_MODEL "/Qwen2.5-VL-ViT/config.json";
constexpr char kDemoTower[] = LANCET_DEMO_MODEL "/Qwen2.5-VL-ViT/vit.safetensors";

// --- The published conformance vector ---

// Element i of stream n, in [-1, 1).
double HashValue(uint32_t n, uint32_t i) {
  uint32_t h = n * 0x9E3779B1u + i * 0x85EBCA6Bu + 1u;
  h ^= h >> 16;
  h *= 0x7FEB352Du;
  h ^= h >> 15;
  h *= 0x846CA68Bu;
  h ^= h >> 16;
  return h / 2147483648.0 - 1.0;
}

VisionConfig ConformanceConfig() {
  VisionConfig config;
  config.depth = 2;
  config.hidden_size = 160;
  config.num_heads = 2;
  config.head_dim = 80;
  config.intermediate_size = 96;
  config.out_hidden_size = 48;
  config.full_attention_blocks = {1};
  return config;
}

TowerWeights ConformanceWeights() {
  TowerWeights weights;
  for (const VisionTensor& tensor : VisionTensors(ConformanceConfig())) {
    const uint32_t n = static_cast<uint32_t>(
        crc32(0, reinterpret_cast<const Bytef*>(tensor.name.data()), static_cast<uInt>(tensor.name.size())));
    const int64_t count = NumElements(tensor.shape);
    const bool norm = tensor.shape.size() == 1 && absl::EndsWith(tensor.name, ".weight");
    const double fan_in = static_cast<double>(count / tensor.shape[0]);
    std::vector<double>& values = weights[tensor.name];
    for (int64_t i = 0; i < count; ++i) {
      const double v = HashValue(n, static_cast<uint32_t>(i));
      values.push_back(norm                                   ? 1 + 0.25 * v
                       : absl::EndsWith(tensor.name, ".bias") ? 0.1 * v
                                                              : v * std::sqrt(3 / fan_in));
    }
  }
  return weights;
}

std::vector<double> ConformancePatches() {
  std::vector<double> patches;
  for (uint32_t i = 0; i < 240 * 1176; ++i) patches.push_back(HashValue(3, i));
  return patches;
}

void ExpectRow(const std::vector<double>& out, int64_t row, std::vector<double> expected) {
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(out[row * 48 + i], expected[i], 1.1e-5) << row;
}

TEST(VisionConformanceTest, ReferenceGivesThePublishedVector) {
  EXPECT_NEAR(HashValue(3410522421u, 0), 0.334736, 1e-6);
  const std::vector<VisionGrid> grids = {{1, 12, 20}};
  const TowerWeights weights = ConformanceWeights();
  const std::vector<double> patches = ConformancePatches();
  const auto exact = RunTowerRef(ConformanceConfig(), weights, patches, grids, false);
  ASSERT_EQ(exact.size(), 60u * 48u);
  ExpectRow(exact, 0, {-0.84389, -0.76755, -0.51141, 0.91756});
  ExpectRow(exact, 1, {-0.36336, -0.21797, 0.14955, 1.04683});
  ExpectRow(exact, 29, {0.78116, -0.10579, -0.66943, 0.68844});
  ExpectRow(exact, 59, {-0.85162, 0.79144, -0.43453, -0.16704});
  double sum = 0;
  for (const double v : exact) sum += std::abs(v);
  EXPECT_NEAR(sum / 2880, 0.519418, 1e-6);
  const auto rounded = RunTowerRef(ConformanceConfig(), weights, patches, grids, true);
  ExpectRow(rounded, 0, {-0.84530, -0.76638, -0.51193, 0.91711});
  ExpectRow(rounded, 59, {-0.85292, 0.79108, -0.43589, -0.16826});
}

// --- The encoder against the reference ---

enum class Stored { kF32, kBf16 };

std::unique_ptr<SafetensorsFile> MakeTower(const VisionConfig& config, const TowerWeights& weights,
                                           Stored stored) {
  TensorFile file;
  for (const VisionTensor& tensor : VisionTensors(config)) {
    TestTensor& out = file[tensor.name];
    out.dtype = stored == Stored::kF32 ? "F32" : "BF16";
    out.shape = tensor.shape;
    for (const double v : weights.at(tensor.name)) {
      const float f = static_cast<float>(v);
      const bf16 b = ToBf16(f);
      out.data.append(
          stored == Stored::kF32 ? reinterpret_cast<const char*>(&f) : reinterpret_cast<const char*>(&b),
          stored == Stored::kF32 ? sizeof(f) : sizeof(b));
    }
  }
  return SafetensorsFile::Create(std::make_unique<InMemoryFile>(SerializeTensors(file))).value();
}

TowerWeights RoundWeights(TowerWeights weights) {
  for (auto& [name, values] : weights) {
    for (double& v : values) v = RoundToBf16(static_cast<float>(v));
  }
  return weights;
}

struct Rank {
  std::unique_ptr<KernelContext> ctx;
  std::unique_ptr<VisionEncoder> encoder;
};

class Group {
 public:
  Group(const StateDict& tower, const VisionConfig& config, int world, int64_t max_patches = 2304,
        CpuIsa isa = CpuIsa::kAvx512Bf16, int threads = 1) {
    for (int rank = 0; rank < world; ++rank) {
      Rank& own = ranks_.emplace_back();
      CpuOptions options;
      options.max_isa = isa;
      options.use_bf16_dots = true;
      options.threads = threads;
      own.ctx = KernelContext::CreateCpu(options).value();
      own.encoder =
          VisionEncoder::Load(*own.ctx, tower, config, rank, world, {.max_patches = max_patches}).value();
      EXPECT_EQ(own.encoder->reduce_capacity(), ranks_[0].encoder->reduce_capacity());
    }
  }

  using Call = std::function<absl::Status(VisionEncoder&, Collective&, MatrixView<bf16> out)>;
  // The tokens, which are the same bytes on all ranks.
  std::vector<bf16> Run(int64_t tokens, const Call& call) {
    const int world = static_cast<int>(ranks_.size());
    const size_t capacity = static_cast<size_t>(ranks_[0].encoder->reduce_capacity());
    const int64_t width = ranks_[0].encoder->config().out_hidden_size;
    std::vector<std::unique_ptr<Collective>> collectives;
    if (world == 1) {
      collectives.push_back(SingleRankCollective::Create(capacity).value());
    } else {
      auto group = ShmCollective::CreateGroupInProcess(world, capacity).value();
      for (auto& one : group) collectives.push_back(std::move(one));
    }
    std::vector<std::vector<bf16>> out(world, std::vector<bf16>(tokens * width));
    std::vector<std::thread> threads;
    for (int rank = 0; rank < world; ++rank) {
      threads.emplace_back([&, rank] {
        ranks_[rank].ctx->BindCallingThread();
        const absl::Status status = call(*ranks_[rank].encoder, *collectives[rank],
                                         MatrixView<bf16>(out[rank].data(), tokens, width));
        EXPECT_THAT(status, IsOk());
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const auto& tokens_of_rank : out) EXPECT_EQ(tokens_of_rank, out[0]);
    return out[0];
  }

  std::vector<bf16> Encode(const std::vector<bf16>& patches, const std::vector<VisionGrid>& grids) {
    const int64_t cols = ranks_[0].encoder->config().patch_values();
    const int64_t rows = static_cast<int64_t>(patches.size()) / cols;
    return Run(rows / 4, [&](VisionEncoder& encoder, Collective& collective, MatrixView<bf16> out) {
      return encoder.Encode(ConstMatrixView<bf16>(patches.data(), rows, cols), grids, collective,
                            absl::Minutes(1), out);
    });
  }

  VisionEncoder& encoder(int rank) { return *ranks_[rank].encoder; }

 private:
  std::vector<Rank> ranks_;
};

std::vector<bf16> ToBf16s(const std::vector<double>& values) {
  std::vector<bf16> rounded;
  for (const double v : values) rounded.push_back(ToBf16(static_cast<float>(v)));
  return rounded;
}

std::vector<double> ToDoubles(const std::vector<bf16>& values) {
  std::vector<double> wide;
  for (const bf16 v : values) wide.push_back(ToFloat(v));
  return wide;
}

double RelativeRms(const std::vector<bf16>& got, const std::vector<double>& expected) {
  double difference = 0;
  double norm = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    difference += std::pow(ToFloat(got[i]) - expected[i], 2);
    norm += expected[i] * expected[i];
  }
  return std::sqrt(difference / norm);
}

TEST(VisionEncoderTest, EveryInstructionSetFollowsTheReference) {
  const VisionConfig config = ConformanceConfig();
  const TowerWeights weights = RoundWeights(ConformanceWeights());
  const std::vector<bf16> patches = ToBf16s(ConformancePatches());
  const std::vector<VisionGrid> grids = {{1, 12, 20}};
  const auto exact = RunTowerRef(config, weights, ToDoubles(patches), grids, true);
  const auto exact_table = RunTowerRef(config, weights, ToDoubles(patches), grids, false);
  const auto tower = MakeTower(config, weights, Stored::kBf16);
  for (const CpuIsa isa : {CpuIsa::kPortable, CpuIsa::kAvx2, CpuIsa::kAvx512, CpuIsa::kAvx512Bf16}) {
    Group group(*tower, config, 1, 2304, isa);
    const std::vector<bf16> out = group.Encode(patches, grids);
    // Rounding at every step of two blocks costs 0.8 %; a wrong order or rotation costs tens.
    EXPECT_LT(RelativeRms(out, exact), 0.012) << CpuIsaName(isa);
    // Closer to the model as it was trained than to exact angles.
    EXPECT_LT(RelativeRms(out, exact), RelativeRms(out, exact_table));
  }
}

// Files of F32 values are rounded once; the video release has such a tower.
TEST(VisionEncoderTest, ElementTypeOfTheFileDoesNotMatter) {
  const VisionConfig config = ConformanceConfig();
  const TowerWeights weights = ConformanceWeights();
  const std::vector<bf16> patches = ToBf16s(ConformancePatches());
  const auto f32 = MakeTower(config, weights, Stored::kF32);
  const auto rounded = MakeTower(config, weights, Stored::kBf16);
  for (const int world : {1, 2}) {
    EXPECT_EQ(Group(*f32, config, world).Encode(patches, {{1, 12, 20}}),
              Group(*rounded, config, world).Encode(patches, {{1, 12, 20}}));
  }
}

// --- The demo's tower: three heads, which divide over few groups ---

class DemoTowerTest : public ::testing::Test {
 protected:
  static std::vector<bf16> Patches(int64_t count, uint32_t seed) {
    std::vector<bf16> patches;
    for (uint32_t i = 0; i < count * 1176; ++i) {
      patches.push_back(ToBf16(static_cast<float>(1.5 * HashValue(seed, i))));
    }
    return patches;
  }

  const VisionConfig config_ =
      ParseVisionConfig(ReadTextFile(kDemoConfig, 1 << 20).value(), kDemoConfig).value();
  const std::unique_ptr<SafetensorsFile> tower_ = SafetensorsFile::Open(kDemoTower).value();
};

TEST_F(DemoTowerTest, GroupsOfAnySizeFollowTheReference) {
  ASSERT_EQ(config_.num_heads, 3);
  TowerWeights weights;
  for (const std::string& name : tower_->names()) {
    const TensorView view = tower_->Get(name).value();
    for (int64_t i = 0; i < view.num_elements(); ++i) weights[name].push_back(ToFloat(view.as<bf16>()[i]));
  }
  const std::vector<VisionGrid> grids = {{1, 10, 6}, {2, 4, 10}};
  const std::vector<bf16> patches = Patches(140, 1);
  const auto exact = RunTowerRef(config_, weights, ToDoubles(patches), grids, true);
  std::vector<bf16> alone;
  for (const int world : {1, 2, 3, 4, 5}) {
    Group group(*tower_, config_, world);
    const std::vector<bf16> out = group.Encode(patches, grids);
    EXPECT_LT(RelativeRms(out, exact), 0.02) << world << " ranks";
    EXPECT_EQ(out, group.Encode(patches, grids)) << "another run of " << world << " ranks";
    if (world == 1) alone = out;
    EXPECT_LT(RelativeRms(out, ToDoubles(alone)), 0.02) << world << " ranks";
  }
}

// The room an encoder has and its threads do not show in a clip's bytes. Clips encoded beside it show in the
// order of sums at most.
TEST_F(DemoTowerTest, ClipsDoNotSeeTheirNeighbours) {
  const std::vector<bf16> first = Patches(48, 7);
  const std::vector<bf16> second = Patches(1040, 8);  // more than goes through a Linear at a time
  std::vector<bf16> both = first;
  both.insert(both.end(), second.begin(), second.end());
  Group group(*tower_, config_, 2);
  const std::vector<bf16> packed = group.Encode(both, {{1, 6, 8}, {1, 26, 40}});
  std::vector<bf16> apart = group.Encode(first, {{1, 6, 8}});
  const std::vector<bf16> rest = group.Encode(second, {{1, 26, 40}});
  Group small(*tower_, config_, 2, 48, CpuIsa::kAvx512Bf16, 2);
  EXPECT_EQ(small.Encode(first, {{1, 6, 8}}), apart);
  apart.insert(apart.end(), rest.begin(), rest.end());
  EXPECT_LT(RelativeRms(packed, ToDoubles(apart)), 0.02);
}

TEST_F(DemoTowerTest, PicturesAreTheirPatches) {
  RgbImage picture{84, 56, {}};
  for (uint32_t i = 0; i < 84 * 56 * 3; ++i) {
    picture.pixels.push_back(static_cast<uint8_t>(128 + 127 * HashValue(5, i)));
  }
  const PicturePatches cut = PicturePatches::Create(config_, picture).value();
  std::vector<bf16> patches(24 * 1176);
  for (int64_t i = 0; i < 24; ++i) cut.Fill(i, patches.data() + i * 1176);
  Group group(*tower_, config_, 2);
  ASSERT_EQ(group.encoder(0).TokensOf(picture), 6);
  const auto tokens = group.Run(6, [&](VisionEncoder& encoder, Collective& collective, MatrixView<bf16> out) {
    return encoder.EncodePicture(picture, collective, absl::Minutes(1), out);
  });
  EXPECT_EQ(tokens, group.Encode(patches, {{1, 4, 6}}));
}

TEST_F(DemoTowerTest, NamesShapesThatDisagree) {
  const auto ctx = KernelContext::CreateCpu({}).value();
  for (const int64_t max_patches : {int64_t{0}, int64_t{2} << 20}) {
    EXPECT_THAT(VisionEncoder::Load(*ctx, *tower_, config_, 0, 1, {.max_patches = max_patches}).status(),
                Fails(absl::StatusCode::kInvalidArgument, HasSubstr("max_patches")));
  }
  EXPECT_THAT(VisionEncoder::Load(*ctx, *tower_, config_, 1, 1, {}).status(),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("world size")));
  const auto encoder = VisionEncoder::Load(*ctx, *tower_, config_, 0, 1, {.max_patches = 48}).value();
  const auto collective =
      SingleRankCollective::Create(static_cast<size_t>(encoder->reduce_capacity())).value();
  const std::vector<bf16> patches = Patches(52, 1);
  std::vector<bf16> tokens(13 * 512);
  const auto encode = [&](int64_t rows, VisionGrid grid, int64_t out_rows, int64_t out_cols) {
    return encoder->Encode(ConstMatrixView<bf16>(patches.data(), rows, 1176), {&grid, 1}, *collective,
                           absl::Seconds(1), MatrixView<bf16>(tokens.data(), out_rows, out_cols));
  };
  EXPECT_THAT(encode(48, {1, 6, 8}, 12, 512), IsOk());
  EXPECT_THAT(encode(52, {1, 2, 26}, 13, 512),
              Fails(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr("1x2x26"), HasSubstr("48 patches"))));
  EXPECT_THAT(encode(48, {1, 6, 6}, 12, 512), Fails(absl::StatusCode::kInvalidArgument, HasSubstr("out is")));
  EXPECT_THAT(encode(44, {1, 6, 8}, 12, 512),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("patches is")));
  EXPECT_THAT(encode(48, {1, 6, 8}, 12, 500), Fails(absl::StatusCode::kInvalidArgument, HasSubstr("out is")));
}

}  // namespace
}  // namespace lancet
