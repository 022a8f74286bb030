#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "common/checkpoint.h"
#include "common/safetensors.h"
#include "kernels/number_formats.h"
#include "tests/testing/status_matchers.h"
#include "tools/make_random/random_checkpoint.h"
#include "tools/make_random/random_tensors.h"
#include "worker/collective/local_collective.h"
#include "worker/engine/engine.h"

namespace lancet {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class MakeRandomTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(::testing::TempDir()) /
              (std::string("make_random_") + ::testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const fs::path& folder) {
    CheckpointPaths overrides;
    overrides.model_dir = folder.string();
    const absl::StatusOr<CheckpointPaths> paths = ResolveCheckpoint(overrides);
    if (!paths.ok()) return paths.status();
    return Checkpoint::Open(*paths);
  }

  fs::path folder_;
  const RandomDims small_ = RandomDimsByName("small").value();
};

TEST_F(MakeRandomTest, EngineLoadsAndWarmsUp) {
  ASSERT_THAT(WriteRandomCheckpoint(folder_.string(), small_, {}), IsOk());
  const auto checkpoint = Open(folder_);
  ASSERT_THAT(checkpoint, IsOk());
  EXPECT_FALSE((*checkpoint)->vae_layout().image_only);
  EXPECT_TRUE((*checkpoint)->vae_layout().has_encoder);
  ASSERT_NE((*checkpoint)->vision(), nullptr);
  EngineOptions options;
  options.max_latents = 64;
  options.max_patches = 64;
  options.cache_bytes = 1 << 20;
  const auto engine = Engine::Load(**checkpoint, options);
  ASSERT_THAT(engine, IsOk());
  const auto collective = SingleRankCollective::Create((*engine)->collective_capacity());
  ASSERT_THAT(collective, IsOk());
  ASSERT_THAT((*engine)->Attach(collective->get()), IsOk());
  EXPECT_THAT((*engine)->WarmUp(), IsOk());
}

TEST_F(MakeRandomTest, BytesDependOnSeedAndNotOnThreads) {
  const auto fingerprint = [&](const char* name, RandomCheckpointOptions options) {
    const fs::path folder = folder_ / name;
    EXPECT_THAT(WriteRandomCheckpoint(folder.string(), small_, options), IsOk());
    return Open(folder).value()->fingerprint();
  };
  const std::string one = fingerprint("one", {.seed = 7, .threads = 1});
  EXPECT_EQ(fingerprint("three", {.seed = 7, .threads = 3}), one);
  EXPECT_NE(fingerprint("other", {.seed = 8, .threads = 1}), one);
}

TEST_F(MakeRandomTest, KeepsWhatIsThere) {
  ASSERT_THAT(WriteRandomCheckpoint(folder_.string(), small_, {}), IsOk());
  EXPECT_THAT(WriteRandomCheckpoint(folder_.string(), small_, {}),
              Fails(absl::StatusCode::kAlreadyExists, HasSubstr("nvfp4_state_dict")));
}

// Counts and bytes of the published files (the trunk's without its header).
TEST(RandomTensorsTest, ReleaseHasThePublishedSizes) {
  const RandomDims dims = RandomDimsByName("3b").value();
  const auto bytes = [](const std::vector<RandomTensor>& tensors) {
    int64_t sum = 0;
    for (const RandomTensor& tensor : tensors) sum += tensor.num_bytes();
    return sum;
  };
  const std::vector<RandomTensor> trunk = RandomTrunkTensors(dims, 1);
  EXPECT_EQ(trunk.size(), 2029u);
  EXPECT_EQ(bytes(trunk), 5'087'264'864);
  const std::vector<RandomTensor> vae = RandomVaeTensors(dims, 1);
  EXPECT_EQ(vae.size(), 196u);
  EXPECT_EQ(bytes(vae), int64_t{704'688'668} * 4);
  EXPECT_EQ(RandomVisionTensors(dims, 1).size(), 390u);
}

TEST(RandomTensorsTest, PiecesAreThoseOfTheWhole) {
  for (const RandomTensor& tensor : RandomTrunkTensors(RandomDimsByName("small").value(), 3)) {
    std::vector<std::byte> whole(static_cast<size_t>(tensor.num_bytes()));
    FillRandom(tensor, 0, absl::MakeSpan(whole));
    const size_t half = whole.size() / 2 / kRandomPieceAlignment * kRandomPieceAlignment;
    std::vector<std::byte> rest(whole.size() - half);
    FillRandom(tensor, static_cast<int64_t>(half), absl::MakeSpan(rest));
    EXPECT_EQ(std::memcmp(rest.data(), whole.data() + half, rest.size()), 0) << tensor.name;
  }
}

TEST(RandomTensorsTest, BothFormsOfScalesAgree) {
  const std::vector<RandomTensor> tensors = RandomTrunkTensors(RandomDimsByName("small").value(), 3);
  const auto find = [&](const std::string& name) {
    for (const RandomTensor& tensor : tensors) {
      if (tensor.name != name) continue;
      std::vector<std::byte> data(static_cast<size_t>(tensor.num_bytes()));
      FillRandom(tensor, 0, absl::MakeSpan(data));
      return data;
    }
    return std::vector<std::byte>();
  };
  const std::string base = "language_model.model.layers.1.mlp_moe_gen.down_proj";
  const std::vector<std::byte> wide = find(base + ".scales_bf16");
  const std::vector<std::byte> narrow = find(base + ".scales_fp8");
  ASSERT_EQ(wide.size(), 2 * narrow.size());
  ASSERT_FALSE(narrow.empty());
  for (size_t i = 0; i < narrow.size(); ++i) {
    const float scale = ToFloat(reinterpret_cast<const bf16*>(wide.data())[i]);
    EXPECT_GE(scale, 0.0019f);
    EXPECT_LE(scale, 0.0101f);
    EXPECT_LE(std::abs(FromE4m3(static_cast<uint8_t>(narrow[i])) - scale), 0x1p-9f);
  }
}

TEST(RandomDimsTest, NamesWhatItKnows) {
  EXPECT_THAT(RandomDimsByName("7b"), Fails(absl::StatusCode::kInvalidArgument, HasSubstr("3b or small")));
}

}  // namespace
}  // namespace lancet
