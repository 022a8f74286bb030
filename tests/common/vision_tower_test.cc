// The vision tower's config, value by value, and its tensors, one at a time.
#include "common/vision_tower.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "common/mapped_file.h"
#include "common/safetensors.h"
#include "tests/testing/in_memory_file.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/tensor_file.h"

namespace lancet {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kNanoVit[] = LANCET_TEST_DATA "/nano/Qwen2.5-VL-ViT";

json ReleaseConfig() {
  return {{"depth", 32},
          {"hidden_act", "silu"},
          {"hidden_size", 1280},
          {"intermediate_size", 3420},
          {"num_heads", 16},
          {"in_chans", 3},
          {"out_hidden_size", 2048},
          {"patch_size", 14},
          {"spatial_merge_size", 2},
          {"spatial_patch_size", 14},
          {"window_size", 112},
          {"fullatt_block_indexes", {7, 15, 23, 31}},
          {"tokens_per_second", 2},
          {"temporal_patch_size", 2}};
}

TEST(ParseVisionConfigTest, ReadsTheReleasesSizes) {
  const auto config = ParseVisionConfig(ReleaseConfig().dump(), "config.json");
  ASSERT_THAT(config, IsOk());
  EXPECT_EQ(config->depth, 32);
  EXPECT_EQ(config->head_dim, 80);
  EXPECT_EQ(config->window_cells, 4);
  EXPECT_EQ(config->patch_values(), 1176);
  EXPECT_EQ(config->merged_size(), 5120);
  EXPECT_THAT(config->full_attention_blocks, ElementsAre(7, 15, 23, 31));
  EXPECT_TRUE(config->IsFullAttention(15));
  EXPECT_FALSE(config->IsFullAttention(16));
  // What a file may leave out.
  json terse = ReleaseConfig();
  for (const char* key : {"hidden_act", "in_chans", "patch_size", "spatial_merge_size", "spatial_patch_size",
                          "window_size", "fullatt_block_indexes", "temporal_patch_size"}) {
    terse.erase(key);
  }
  const auto same = ParseVisionConfig(terse.dump(), "config.json");
  ASSERT_THAT(same, IsOk());
  EXPECT_EQ(same->window_cells, 4);
  EXPECT_EQ(same->full_attention_blocks, config->full_attention_blocks);
}

TEST(ParseVisionConfigTest, CountsTheReleasesTensors) {
  const auto config = ParseVisionConfig(ReleaseConfig().dump(), "config.json").value();
  const std::vector<VisionTensor> tensors = VisionTensors(config);
  EXPECT_EQ(tensors.size(), 390u);
  int64_t parameters = 0;
  for (const VisionTensor& tensor : tensors) parameters += NumElements(tensor.shape);
  EXPECT_EQ(parameters, 668'684'288);
}

TEST(ParseVisionConfigTest, NamesKeyValueAndLimit) {
  const struct {
    const char* key;
    json value;  // null: absent
    const char* message;
  } kCases[] = {
      {"depth", nullptr, "depth is missing"},
      {"depth", 0, "depth is '0'; expected 1 to 1024"},
      {"depth", "32", "depth is not an integer"},
      {"hidden_size", nullptr, "hidden_size is missing"},
      {"hidden_size", 1 << 16, "expected 4 to 32768"},
      {"hidden_size", 1296 + 8, "num_heads is 16; expected hidden_size 1304"},
      {"num_heads", nullptr, "num_heads is missing"},
      {"num_heads", 3, "num_heads is 3"},
      {"num_heads", 2, "at most 256"},
      {"num_heads", -1, "num_heads is '-1'"},
      {"intermediate_size", nullptr, "intermediate_size is missing"},
      {"intermediate_size", 1e9, "intermediate_size is not an integer"},
      {"out_hidden_size", nullptr, "out_hidden_size is missing"},
      {"in_chans", 4, "in_chans is '4'; expected 3 to 3"},
      {"in_channels", 1, "in_channels is '1'"},
      {"patch_size", 0, "patch_size is '0'; expected 1 to 64"},
      {"spatial_patch_size", 16, "spatial_patch_size is '16'; expected 14 to 14"},
      {"temporal_patch_size", 9, "temporal_patch_size is '9'"},
      {"spatial_merge_size", 0, "spatial_merge_size is '0'"},
      {"window_size", 100, "window_size is 100; expected a multiple of 28"},
      {"window_size", 14, "window_size is '14'; expected 28"},
      {"fullatt_block_indexes", {7, 32}, "fullatt_block_indexes is '32'; expected 0 to 31"},
      {"fullatt_block_indexes", 7, "fullatt_block_indexes is not a list"},
      {"fullatt_block_indexes", json::array({"7"}), "fullatt_block_indexes is not an integer"},
      {"hidden_act", "gelu", "hidden_act is not 'silu'"},
  };
  for (const auto& c : kCases) {
    json config = ReleaseConfig();
    if (c.value.is_null()) {
      config.erase(c.key);
    } else {
      config[c.key] = c.value;
    }
    EXPECT_THAT(
        ParseVisionConfig(config.dump(), "config.json"),
        Fails(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr("config.json: "), HasSubstr(c.message))))
        << c.key;
  }
  EXPECT_THAT(ParseVisionConfig("[]", "config.json"),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("not a JSON object")));
}

std::unique_ptr<SafetensorsFile> InMemory(const TensorFile& tensors) {
  return SafetensorsFile::Create(std::make_unique<InMemoryFile>(SerializeTensors(tensors))).value();
}

class VisionTowerTest : public ::testing::Test {
 protected:
  const VisionConfig config_ =
      ParseVisionConfig(ReadTextFile(absl::StrCat(kNanoVit, "/config.json"), 1 << 20).value(), "config.json")
          .value();
  const TensorFile tower_ =
      CopyTensors(*SafetensorsFile::Open(absl::StrCat(kNanoVit, "/vit.safetensors")).value());
};

TEST_F(VisionTowerTest, NamesTheMissingTensor) {
  EXPECT_THAT(CheckVisionTower(*InMemory(tower_), config_), IsOk());
  for (const VisionTensor& tensor : VisionTensors(config_)) {
    TensorFile tower = tower_;
    ASSERT_EQ(tower.erase(tensor.name), 1u) << tensor.name;
    EXPECT_THAT(CheckVisionTower(*InMemory(tower), config_),
                Fails(absl::StatusCode::kInvalidArgument,
                      HasSubstr(absl::StrCat("tensor '", tensor.name, "' of the vision tower is missing"))));
  }
}

TEST_F(VisionTowerTest, NamesTheOddTensor) {
  for (const VisionTensor& tensor : VisionTensors(config_)) {
    TensorFile tower = tower_;
    TestTensor& odd = tower[tensor.name];
    odd.dtype = "F16";
    EXPECT_THAT(CheckVisionTower(*InMemory(tower), config_), IsOk());
    odd.dtype = "I16";
    EXPECT_THAT(CheckVisionTower(*InMemory(tower), config_),
                Fails(absl::StatusCode::kInvalidArgument,
                      HasSubstr(absl::StrCat("tensor '", tensor.name,
                                             "' of the vision tower is I16; expected F32, BF16 or F16"))));
    odd.dtype = "BF16";
    odd.shape.push_back(1);
    EXPECT_THAT(CheckVisionTower(*InMemory(tower), config_),
                Fails(absl::StatusCode::kInvalidArgument,
                      HasSubstr(absl::StrCat("tensor '", tensor.name, "' of the vision tower has shape "))));
  }
}

TEST_F(VisionTowerTest, TensorsOfTheTrunkFileWin) {
  const TestTensor& norm = tower_.at("merger.ln_q.weight");
  TestTensor changed = norm;
  changed.data[1] = static_cast<char>(changed.data[1] ^ 1);
  const auto trunk = InMemory({{"vit_model.merger.ln_q.weight", changed}, {"vit_model.extra", norm}});
  const auto file = InMemory(tower_);
  const VisionTower tower(*trunk, file.get());
  EXPECT_EQ(tower.tensors_in_trunk(), 2);
  EXPECT_EQ(tower.names().size(), tower_.size() + 1);
  EXPECT_TRUE(tower.Contains("extra"));
  EXPECT_TRUE(tower.Contains("merger.mlp.2.bias"));
  EXPECT_FALSE(tower.Contains("vit_model.extra"));
  TensorFile expected = tower_;
  expected["merger.ln_q.weight"] = changed;
  const TensorFile copy = CopyTensors(tower);
  for (const auto& [name, tensor] : expected) EXPECT_EQ(copy.at(name).data, tensor.data) << name;
  const VisionTower alone(*trunk, nullptr);
  EXPECT_THAT(alone.names(), ElementsAre("extra", "merger.ln_q.weight"));
  EXPECT_THAT(alone.Get("merger.mlp.2.bias"),
              Fails(absl::StatusCode::kNotFound, HasSubstr("merger.mlp.2.bias")));
}

}  // namespace
}  // namespace lancet
