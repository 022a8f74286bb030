// Every tensor of trunk and autoencoder, one at a time: absent, of another shape, of another type.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/json.h"
#include "common/mapped_file.h"
#include "common/safetensors.h"
#include "common/trunk_check.h"
#include "common/trunk_layout.h"
#include "common/vae_check.h"
#include "tests/testing/in_memory_file.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/tensor_file.h"

namespace lancet {
namespace {

using ::testing::HasSubstr;

constexpr char kNano[] = LANCET_TEST_DATA "/nano";

std::unique_ptr<SafetensorsFile> InMemory(const TensorFile& tensors) {
  return SafetensorsFile::Create(std::make_unique<InMemoryFile>(SerializeTensors(tensors))).value();
}

class TrunkLayoutCheckTest : public ::testing::Test {
 protected:
  const std::string config_path_ = absl::StrCat(kNano, "/Lance_3B/llm_config.json");
  const ModelConfig config_ =
      ParseModelConfig(ReadTextFile(config_path_, 1 << 20).value(), config_path_).value();
  const TensorFile trunk_ = CopyTensors(
      *SafetensorsFile::Open(absl::StrCat(kNano, "/Lance_3B-NVFP4/nvfp4_state_dict.safetensors")).value());
};

TEST_F(TrunkLayoutCheckTest, AcceptsTheWhole) {
  const auto trunk = InMemory(trunk_);
  EXPECT_THAT(CheckTrunkLayout(*trunk, config_), IsOk());
  EXPECT_THAT(CheckTrunkValues(*trunk, config_, {}), IsOk());
}

TEST_F(TrunkLayoutCheckTest, NamesTheMissingTensor) {
  for (const TrunkTensor& tensor : TrunkTensors(config_)) {
    TensorFile trunk = trunk_;
    ASSERT_EQ(trunk.erase(tensor.name), 1u) << tensor.name;
    EXPECT_THAT(CheckTrunkLayout(*InMemory(trunk), config_),
                Fails(absl::StatusCode::kInvalidArgument,
                      HasSubstr(absl::StrCat("tensor '", tensor.name, "' is missing"))));
  }
}

TEST_F(TrunkLayoutCheckTest, NamesTheOddTensor) {
  for (const TrunkTensor& tensor : TrunkTensors(config_)) {
    TensorFile trunk = trunk_;
    TestTensor& odd = trunk[tensor.name];
    odd.shape.push_back(1);
    EXPECT_THAT(
        CheckTrunkLayout(*InMemory(trunk), config_),
        Fails(absl::StatusCode::kInvalidArgument, HasSubstr(absl::StrCat("tensor '", tensor.name, "' is "))));
    odd.shape.pop_back();
    odd.dtype = odd.dtype == "U8" ? "I8" : "F16";
    EXPECT_THAT(CheckTrunkLayout(*InMemory(trunk), config_),
                Fails(absl::StatusCode::kInvalidArgument,
                      HasSubstr(absl::StrCat("tensor '", tensor.name, "' is ", odd.dtype))));
  }
}

constexpr char kGate[] = "language_model.model.layers.1.mlp.gate_proj";

TEST_F(TrunkLayoutCheckTest, TakesLinearsThatStayUnquantised) {
  TensorFile tensors = trunk_;
  for (const char* kind : {".qweight", ".scales_fp8", ".scales_bf16"})
    tensors.erase(absl::StrCat(kGate, kind));
  TestTensor& weight = tensors[absl::StrCat(kGate, ".weight")];
  weight = {"BF16", {176, 512}, std::string(176 * 512 * 2, '\0')};
  const auto trunk = InMemory(tensors);
  EXPECT_THAT(CheckTrunkLayout(*trunk, config_), IsOk());
  EXPECT_THAT(CheckTrunkValues(*trunk, config_, {}), IsOk());
  weight.dtype = "F32";
  weight.data += weight.data;
  EXPECT_THAT(CheckTrunkLayout(*InMemory(tensors), config_),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("is F32 [176, 512]; expected BF16")));
}

TEST_F(TrunkLayoutCheckTest, MetaFilesNameWhatIsQuantised) {
  const std::string path = absl::StrCat(kNano, "/Lance_3B-NVFP4/nvfp4_meta.json");
  nlohmann::json meta = nlohmann::json::parse(ReadTextFile(path, 1 << 20).value());
  TensorFile tensors = trunk_;
  for (const char* kind : {".qweight", ".scales_fp8", ".scales_bf16"})
    tensors.erase(absl::StrCat(kGate, kind));
  tensors[absl::StrCat(kGate, ".weight")] = {"BF16", {176, 512}, std::string(176 * 512 * 2, '\0')};
  const auto trunk = InMemory(tensors);
  EXPECT_THAT(ParseTrunkMeta(meta.dump(), "meta", config_, nullptr), IsOk());
  EXPECT_THAT(ParseTrunkMeta(meta.dump(), "meta", config_, trunk.get()),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("holds this linear unquantised")));
  meta["per_weight"].erase(absl::StrCat(kGate, ".weight"));
  EXPECT_THAT(ParseTrunkMeta(meta.dump(), "meta", config_, trunk.get()), IsOk());
  EXPECT_THAT(ParseTrunkMeta(meta.dump(), "meta", config_, nullptr),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("per_weight lacks")));
}

TEST_F(TrunkLayoutCheckTest, MetaFilesMayHaveFactorsOfScales) {
  const std::string path = absl::StrCat(kNano, "/Lance_3B-NVFP4/nvfp4_meta.json");
  nlohmann::json meta = nlohmann::json::parse(ReadTextFile(path, 1 << 20).value());
  nlohmann::json& entry = meta["per_weight"][absl::StrCat(kGate, ".weight")];
  entry["scales_fp8_factor"] = 0.000244140625;
  const auto parsed = ParseTrunkMeta(meta.dump(), "meta", config_, nullptr);
  ASSERT_THAT(parsed, IsOk());
  ASSERT_EQ(parsed->scale_factors.size(), 1u);
  EXPECT_EQ(parsed->scale_factors.at(kGate), 0x1p-12f);
  for (const nlohmann::json& bad : {nlohmann::json(0), nlohmann::json(-1), nlohmann::json(1e-40),
                                    nlohmann::json(1e39), nlohmann::json("1"), nlohmann::json()}) {
    entry["scales_fp8_factor"] = bad;
    EXPECT_THAT(ParseTrunkMeta(meta.dump(), "meta", config_, nullptr),
                Fails(absl::StatusCode::kInvalidArgument, HasSubstr("scales_fp8_factor is ")))
        << bad;
  }
}

// Scales that were searched for leave blocks whose largest code is 6, which is odd without a factor.
TEST_F(TrunkLayoutCheckTest, SearchedScalesMayLeaveTheLargestCodeUnused) {
  TensorFile tensors = trunk_;
  TrunkMeta meta;
  for (auto& [name, tensor] : tensors) {
    if (!absl::EndsWith(name, ".qweight")) continue;
    meta.scale_factors[name.substr(0, name.size() - 8)] = 1.0f;
    for (char& byte : tensor.data) {
      if ((byte & 7) == 7) byte ^= 1;
      if ((byte & 0x70) == 0x70) byte ^= 0x10;
    }
  }
  const auto trunk = InMemory(tensors);
  EXPECT_THAT(CheckTrunkValues(*trunk, config_, meta), IsOk());
  EXPECT_THAT(CheckTrunkValues(*trunk, config_, {}),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("largest E2M1 code")));
}

class VaeCheckTest : public ::testing::Test {
 protected:
  const TensorFile vae_ =
      CopyTensors(*SafetensorsFile::Open(absl::StrCat(kNano, "/Wan2.2_VAE.safetensors")).value());
};

TEST_F(VaeCheckTest, AcceptsTheWhole) {
  EXPECT_EQ(vae_.size(), 196u);
  const auto layout = CheckVae(*InMemory(vae_));
  ASSERT_THAT(layout, IsOk());
  EXPECT_FALSE(layout->image_only);
  EXPECT_TRUE(layout->has_encoder);
}

TEST_F(VaeCheckTest, NamesTheMissingTensor) {
  for (const auto& entry : vae_) {
    TensorFile vae = vae_;
    vae.erase(entry.first);
    EXPECT_THAT(CheckVae(*InMemory(vae)),
                Fails(absl::StatusCode::kInvalidArgument,
                      HasSubstr(absl::StrCat("tensor '", entry.first, "' is missing"))));
  }
}

TEST_F(VaeCheckTest, NamesTheOddTensor) {
  for (const auto& [name, tensor] : vae_) {
    TensorFile vae = vae_;
    vae[name].shape.push_back(1);
    EXPECT_THAT(CheckVae(*InMemory(vae)), Fails(absl::StatusCode::kInvalidArgument,
                                                HasSubstr(absl::StrCat("tensor '", name, "' has shape"))));
    vae[name] = {"I16", tensor.shape, tensor.data};
    EXPECT_THAT(CheckVae(*InMemory(vae)), Fails(absl::StatusCode::kInvalidArgument,
                                                HasSubstr(absl::StrCat("tensor '", name, "' is I16"))));
  }
}

TEST_F(VaeCheckTest, TakesEveryFloatingType) {
  TensorFile vae = vae_;
  for (auto& [name, tensor] : vae) {
    tensor.dtype = "F16";
    if (name.back() == 's') {  // biases
      tensor.dtype = "F32";
      tensor.data += tensor.data;
    }
  }
  EXPECT_THAT(CheckVae(*InMemory(vae)), IsOk());
}

// A shortcut that the block would not use must not be dropped in silence.
TEST_F(VaeCheckTest, RefusesAShortcutWithoutUse) {
  TensorFile vae = vae_;
  vae["decoder.middle.0.shortcut.weight"] = {"BF16", {32, 32, 1, 1, 1}, std::string(2048, '\0')};
  EXPECT_THAT(CheckVae(*InMemory(vae)),
              Fails(absl::StatusCode::kInvalidArgument,
                    HasSubstr("'decoder.middle.0.shortcut.weight' stands in a block")));
}

}  // namespace
}  // namespace lancet
