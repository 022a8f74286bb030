#include "worker/loader/linear_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/json.h"
#include "common/mapped_file.h"
#include "common/trunk_layout.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/tensor_file.h"

namespace lancet {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

const std::string kLayer = "language_model.model.layers.0.";

class LinearPolicyTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    CheckpointPaths overrides;
    overrides.model_dir = LANCET_TEST_DATA "/nano";
    checkpoint_ = Checkpoint::Open(ResolveCheckpoint(overrides).value()).value().release();
  }
  static void TearDownTestSuite() {
    delete checkpoint_;
    checkpoint_ = nullptr;
  }
  absl::StatusOr<LinearPolicy> Policy(LinearMode mode, std::vector<std::string> bf16 = {},
                                      std::string factors = "") const {
    return LinearPolicy::Create(*checkpoint_, {mode, std::move(bf16), std::move(factors)});
  }
  // A file of factors: `factor` for all Linears but k_proj of layer 0, which has twice that.
  std::string WriteFactors(double factor, absl::string_view fingerprint) const {
    std::string entries;
    for (const TrunkLinear& linear : TrunkLinears(checkpoint_->config())) {
      const double value = linear.base == kLayer + "self_attn.k_proj" ? 2 * factor : factor;
      absl::StrAppend(&entries, entries.empty() ? "" : ", ", "\"", linear.base, "\": ", value);
    }
    const std::string path =
        (std::filesystem::path(::testing::TempDir()) / absl::StrCat("factors_", getpid(), ".json")).string();
    std::ofstream(path) << "{\"version\": 1, \"fingerprint\": \"" << fingerprint << "\", \"factors\": {"
                        << entries << "}}";
    return path;
  }
  static Checkpoint* checkpoint_;
};
Checkpoint* LinearPolicyTest::checkpoint_ = nullptr;

TEST_F(LinearPolicyTest, ModesHaveNames) {
  for (const LinearMode mode :
       {LinearMode::kW4A16, LinearMode::kW4A8Fp8, LinearMode::kW4A8Int8, LinearMode::kW4A4}) {
    EXPECT_EQ(ParseLinearMode(LinearModeName(mode), false).value(), mode);
    if (mode != LinearMode::kW4A8Int8) {
      EXPECT_EQ(ParseLinearMode(LinearModeName(mode), true).value(), mode);
    }
  }
  EXPECT_EQ(ParseLinearMode("w4a8", true).value(), LinearMode::kW4A8Fp8);
  EXPECT_EQ(ParseLinearMode("w4a8", false).value(), LinearMode::kW4A8Int8);
  EXPECT_THAT(ParseLinearMode("w4a8_int8", true),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("on a CUDA device")));
  EXPECT_THAT(ParseLinearMode("W4A4", false),
              Fails(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr("'W4A4'"), HasSubstr("w4a8_fp8"))));
}

TEST_F(LinearPolicyTest, HeadsAndBlockScalesHaveNames) {
  for (const HeadForm form : {HeadForm::kBf16, HeadForm::kInt8}) {
    EXPECT_EQ(ParseHeadForm(HeadFormName(form)).value(), form);
  }
  EXPECT_THAT(ParseHeadForm("int4"), Fails(absl::StatusCode::kInvalidArgument, HasSubstr("'int4'")));
  LinearPolicyOptions options;
  options.head = HeadForm::kInt8;
  EXPECT_EQ(LinearPolicy::Create(*checkpoint_, options)->Numerics(), "w4a16 head int8");
  EXPECT_EQ(ParseBlockScales("bf16").value(), false);
  EXPECT_EQ(ParseBlockScales("e4m3").value(), true);
  EXPECT_THAT(ParseBlockScales("fp8"), Fails(absl::StatusCode::kInvalidArgument, HasSubstr("'fp8'")));
  options.e4m3_scales = true;
  EXPECT_THAT(LinearPolicy::Create(*checkpoint_, options),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("w4a8_int8")));
  options.mode = LinearMode::kW4A8Int8;
  const auto policy = LinearPolicy::Create(*checkpoint_, options);
  EXPECT_EQ(policy->Numerics(), "w4a8_int8 e4m3 head int8");
  EXPECT_TRUE(policy->ChoiceOf({kLayer + "mlp.down_proj"}).e4m3_scales);
}

TEST_F(LinearPolicyTest, PatternsKeepWholeProductsInBf16) {
  const auto policy = Policy(LinearMode::kW4A4, {"*.down_proj", "*.layers.0.self_attn.k_proj"});
  ASSERT_THAT(policy, IsOk());
  const std::string attention = kLayer + "self_attn.";
  EXPECT_EQ(policy->ChoiceOf({kLayer + "mlp.down_proj"}).mode, LinearMode::kW4A16);
  EXPECT_EQ(policy->ChoiceOf({kLayer + "mlp_moe_gen.down_proj"}).mode, LinearMode::kW4A16);
  EXPECT_EQ(policy->ChoiceOf({kLayer + "mlp.gate_proj", kLayer + "mlp.up_proj"}).mode, LinearMode::kW4A4);
  EXPECT_EQ(policy->ChoiceOf({attention + "q_proj", attention + "k_proj", attention + "v_proj"}).mode,
            LinearMode::kW4A16);
  EXPECT_EQ(policy
                ->ChoiceOf({attention + "q_proj_moe_gen", attention + "k_proj_moe_gen",
                            attention + "v_proj_moe_gen"})
                .mode,
            LinearMode::kW4A4);
  EXPECT_EQ(LinearPolicy().ChoiceOf({attention + "o_proj"}).mode, LinearMode::kW4A16);
}

TEST_F(LinearPolicyTest, NumericsTellWhatChangesResults) {
  const auto numerics = [&](LinearMode mode, std::vector<std::string> bf16, const std::string& factors) {
    return Policy(mode, std::move(bf16), factors).value().Numerics();
  };
  EXPECT_EQ(numerics(LinearMode::kW4A16, {"*.down_proj"}, ""), "w4a16");
  EXPECT_EQ(numerics(LinearMode::kW4A8Fp8, {}, ""), "w4a8_fp8");
  EXPECT_EQ(numerics(LinearMode::kW4A8Int8, {}, ""), "w4a8_int8");
  const std::string plain = numerics(LinearMode::kW4A4, {}, "none");
  const std::string down = numerics(LinearMode::kW4A4, {"*.down_proj"}, "none");
  EXPECT_EQ(plain, "w4a4");
  EXPECT_NE(down, plain);
  EXPECT_EQ(numerics(LinearMode::kW4A4, {"*.down_proj", "*.down_proj"}, "none"), down);
  EXPECT_NE(numerics(LinearMode::kW4A4, {"*.o_proj"}, "none"), down);
  const std::string two = numerics(LinearMode::kW4A4, {}, WriteFactors(2, checkpoint_->fingerprint()));
  EXPECT_NE(two, plain);
  EXPECT_NE(numerics(LinearMode::kW4A4, {}, WriteFactors(3, checkpoint_->fingerprint())), two);
}

// Factors of scales are the meta file's, which says nothing about what the published checkpoints hold.
TEST_F(LinearPolicyTest, FactorsOfScalesAreTheCheckpoints) {
  const std::vector<std::string> o = {kLayer + "self_attn.o_proj"};
  EXPECT_EQ(Policy(LinearMode::kW4A4)->ChoiceOf(o).weight_factor, 0.0f);

  namespace fs = std::filesystem;
  const fs::path folder = fs::path(::testing::TempDir()) / absl::StrCat("scales_", getpid());
  fs::create_directories(folder);
  nlohmann::json meta = nlohmann::json::parse(ReadTextFile(checkpoint_->paths().trunk_meta, 1 << 20).value());
  const std::string attention = kLayer + "self_attn.";
  meta["per_weight"][attention + "o_proj.weight"]["scales_fp8_factor"] = 0.25;
  meta["per_weight"][attention + "q_proj.weight"]["scales_fp8_factor"] = 0.125;
  meta["per_weight"][attention + "k_proj.weight"]["scales_fp8_factor"] = 0.5;
  std::ofstream(folder / "nvfp4_meta.json") << meta.dump();
  CheckpointPaths paths = checkpoint_->paths();
  paths.trunk_meta = (folder / "nvfp4_meta.json").string();
  const auto checkpoint = Checkpoint::Open(paths);
  ASSERT_THAT(checkpoint, IsOk());
  LinearPolicyOptions options;
  options.mode = LinearMode::kW4A4;
  const LinearPolicy policy = LinearPolicy::Create(**checkpoint, options).value();
  EXPECT_EQ(policy.ChoiceOf(o).weight_factor, 0.25f);
  EXPECT_EQ(policy.ChoiceOf({attention + "q_proj", attention + "k_proj"}).weight_factor, 0.5f);
  EXPECT_EQ(policy.ChoiceOf({attention + "q_proj", attention + "v_proj"}).weight_factor, 0.0f);
  EXPECT_NE(policy.Numerics(), Policy(LinearMode::kW4A4)->Numerics());
  options.mode = LinearMode::kW4A16;
  EXPECT_EQ(LinearPolicy::Create(**checkpoint, options)->Numerics(), "w4a16");
  fs::remove_all(folder);
}

TEST_F(LinearPolicyTest, RefusesPatternsThatMatchNothing) {
  for (const LinearMode mode : {LinearMode::kW4A16, LinearMode::kW4A8Fp8, LinearMode::kW4A4}) {
    EXPECT_THAT(
        Policy(mode, {"*.down_proj", "*.layers.99.*"}),
        Fails(absl::StatusCode::kInvalidArgument,
              AllOf(HasSubstr("'*.layers.99.*' matches no Linear"), HasSubstr("layers.0.self_attn"))));
  }
  EXPECT_THAT(Policy(LinearMode::kW4A4, {""}),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("'' matches no Linear")));
  EXPECT_THAT(Policy(LinearMode::kW4A4, std::vector<std::string>(65, "*")),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("at most 64")));
  EXPECT_THAT(Policy(LinearMode::kW4A4, {std::string(257, '*')}),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("at most 256")));
}

TEST_F(LinearPolicyTest, FactorsAreReadForTheirCheckpointInW4a4) {
  const std::vector<std::string> o = {kLayer + "self_attn.o_proj"};
  EXPECT_EQ(Policy(LinearMode::kW4A4)->ChoiceOf(o).activation_factor, 1.0f);
  const std::string path = WriteFactors(0.25, checkpoint_->fingerprint());
  const auto policy = Policy(LinearMode::kW4A4, {}, path);
  ASSERT_THAT(policy, IsOk());
  EXPECT_EQ(policy->ChoiceOf(o).activation_factor, 0.25f);
  const std::string attention = kLayer + "self_attn.";
  EXPECT_EQ(
      policy->ChoiceOf({attention + "q_proj", attention + "k_proj", attention + "v_proj"}).activation_factor,
      0.5f);
  const std::string other = WriteFactors(0.25, std::string(32, '0'));
  EXPECT_THAT(Policy(LinearMode::kW4A4, {}, other),
              Fails(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr(other), HasSubstr("fingerprint"))));
  EXPECT_THAT(Policy(LinearMode::kW4A4, {}, "none"), IsOk());
  EXPECT_THAT(Policy(LinearMode::kW4A8Fp8, {}, other), IsOk());
  std::filesystem::remove(path);
  EXPECT_THAT(Policy(LinearMode::kW4A4, {}, path), Fails(absl::StatusCode::kNotFound, HasSubstr(path)));
}

TEST_F(LinearPolicyTest, AFileBesideTheTrunkIsFound) {
  namespace fs = std::filesystem;
  const fs::path folder = fs::path(::testing::TempDir()) / absl::StrCat("policy_", getpid());
  fs::create_directories(folder);
  fs::copy(LANCET_TEST_DATA "/nano", folder,
           fs::copy_options::recursive | fs::copy_options::overwrite_existing);
  const std::string path = WriteFactors(0.125, checkpoint_->fingerprint());
  fs::rename(path, folder / "Lance_3B-NVFP4" / kActivationFactorsFile);
  CheckpointPaths overrides;
  overrides.model_dir = folder.string();
  const auto copy = Checkpoint::Open(ResolveCheckpoint(overrides).value());
  ASSERT_THAT(copy, IsOk());
  LinearPolicyOptions options;
  options.mode = LinearMode::kW4A4;
  const std::vector<std::string> o = {kLayer + "self_attn.o_proj"};
  EXPECT_EQ(LinearPolicy::Create(**copy, options)->ChoiceOf(o).activation_factor, 0.125f);
  options.activation_factors = "none";
  EXPECT_EQ(LinearPolicy::Create(**copy, options)->ChoiceOf(o).activation_factor, 1.0f);
  fs::remove_all(folder);
}

}  // namespace
}  // namespace lancet
