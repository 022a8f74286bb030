#include "tools/inspect/comparison.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "common/json.h"
#include "tests/tools/quantize/quantise_testing.h"

namespace lancet {
namespace {

using ::testing::HasSubstr;

class ComparisonTest : public ::testing::Test {
 protected:
  std::vector<LinearComparison> Compare(const StateDict& trunk, const Calibration* calibration) {
    return CompareWithSource(trunk, MicroConfig(), *source_, calibration, pool_).value();
  }

  ThreadPool pool_{2};
  const std::unique_ptr<SafetensorsFile> source_ = MicroSource();
  const std::unique_ptr<SafetensorsFile> published_ =
      SafetensorsFile::Open(MicroPath("Lance_3B-NVFP4/nvfp4_state_dict.safetensors")).value();
  const Calibration calibration_ = Calibration::Open(MicroPath("awq_calibration.safetensors")).value();
};

TEST_F(ComparisonTest, TakesFactorsOutAgain) {
  const auto linears = Compare(*published_, &calibration_);
  ASSERT_EQ(linears.size(), 28u);
  EXPECT_EQ(linears[0].name, "language_model.model.layers.0.self_attn.q_proj");
  for (const LinearComparison& linear : linears) {
    // Factors of channels that carry little cost weights more than outputs.
    EXPECT_GT(linear.weight_error, 0.06) << linear.name;
    EXPECT_LT(linear.weight_error, 0.2) << linear.name;
    ASSERT_TRUE(linear.output_error.has_value());
    EXPECT_LT(*linear.output_error, 0.12) << linear.name;
    EXPECT_FALSE(linear.is_exact);
    EXPECT_FALSE(linear.is_bf16);
  }
  for (const LinearComparison& linear : Compare(*published_, nullptr)) {
    EXPECT_FALSE(linear.output_error.has_value());
  }
}

TEST_F(ComparisonTest, TheSourceInBf16HasNoError) {
  TensorFile tensors = CopyTensors(*source_);
  for (auto& [name, tensor] : tensors) {
    const TensorView view = source_->Get(name).value();
    std::vector<bf16> values(view.num_elements());
    ReadRounded(view, 0, absl::MakeSpan(values));
    tensor.dtype = "BF16";
    tensor.data.assign(reinterpret_cast<const char*>(values.data()), values.size() * 2);
  }
  for (const LinearComparison& linear : Compare(*InMemory(tensors), &calibration_)) {
    EXPECT_EQ(linear.weight_error, 0.0) << linear.name;
    EXPECT_EQ(linear.output_error, 0.0) << linear.name;
    EXPECT_TRUE(linear.is_bf16);
  }
}

// XᵀX of independent channels says what their squares say.
TEST_F(ComparisonTest, SecondMomentsOfIndependentChannelsAreTheirSquares) {
  TensorFile statistics =
      CopyTensors(*SafetensorsFile::Open(MicroPath("awq_calibration.safetensors")).value());
  const std::string base = "language_model.model.layers.0.mlp.down_proj";
  const auto given = calibration_.Get(base, 176).value();
  std::vector<float> xtx(176 * 176, 0.0f);
  for (int c = 0; c < 176; ++c) xtx[c * 177] = given.mean_square[c] * static_cast<float>(given.rows);
  statistics[base + ".xtx"] = {
      "F32", {176, 176}, std::string(reinterpret_cast<const char*>(xtx.data()), xtx.size() * sizeof(float))};
  const std::string path = FreshPath("statistics.safetensors");
  WriteFile(path, SerializeTensors(statistics));
  const Calibration exact = Calibration::Open(path).value();
  const auto with = Compare(*published_, &exact);
  const auto without = Compare(*published_, &calibration_);
  for (size_t i = 0; i < with.size(); ++i) {
    EXPECT_NEAR(*with[i].output_error, *without[i].output_error, 1e-5) << with[i].name;
    EXPECT_EQ(with[i].is_exact, with[i].name == base);
  }
}

TEST_F(ComparisonTest, ReportsTheWorst) {
  std::vector<LinearComparison> linears = {{"a.mlp.up_proj", false, 0.1, 0.02, true},
                                           {"a.mlp_moe_gen.up_proj", false, 0.08, 0.03, true},
                                           {"b.mlp.up_proj", true, 0.0, std::nullopt, false}};
  const std::string text = ComparisonReport(linears, false);
  EXPECT_THAT(text, HasSubstr("worst weights: a.mlp.up_proj, 0.1000\n"));
  EXPECT_THAT(text, HasSubstr("worst outputs: a.mlp_moe_gen.up_proj, 0.0300\n"));
  EXPECT_THAT(text, ::testing::ContainsRegex("und up_proj +0.0500 +0.0200\n"));
  EXPECT_THAT(text, ::testing::ContainsRegex("b.mlp.up_proj +0.0000 +-  bf16\n"));
  const nlohmann::json json = nlohmann::json::parse(ComparisonReport(linears, true));
  EXPECT_EQ(json[1]["output_error"], 0.03);
  EXPECT_EQ(json[2]["format"], "bf16");
  EXPECT_FALSE(json[2].contains("output_error"));
}

TEST_F(ComparisonTest, NamesWhatDoesNotFit) {
  TensorFile tensors = CopyTensors(*published_);
  tensors.erase("language_model.model.layers.1.mlp.up_proj.scales_bf16");
  EXPECT_THAT(CompareWithSource(*InMemory(tensors), MicroConfig(), *source_, nullptr, pool_),
              Fails(absl::StatusCode::kNotFound, HasSubstr("layers.1.mlp.up_proj.scales_bf16")));
}

}  // namespace
}  // namespace lancet
