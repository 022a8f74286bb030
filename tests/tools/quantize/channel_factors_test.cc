#include "tools/quantize/channel_factors.h"

#include <gtest/gtest.h>

#include <cmath>

#include "common/json.h"
#include "tests/tools/quantize/quantise_testing.h"
#include "tools/quantize/fusion_groups.h"
#include "tools/quantize/input_statistics.h"

namespace lancet {
namespace {

TEST(FusionGroupsTest, HaveEveryLinearOnceBehindItsNorm) {
  const std::vector<FusionGroup> groups = FusionGroups(MicroConfig());
  ASSERT_EQ(groups.size(), 2u * 2 * 4);
  std::vector<std::string> bases;
  for (const FusionGroup& group : groups) {
    for (const TrunkLinear& linear : group.linears) bases.push_back(linear.base);
  }
  EXPECT_EQ(bases.size(), 28u);
  const std::string layer = "language_model.model.layers.1.";
  EXPECT_EQ(groups[8].norm, layer + "input_layernorm");
  ASSERT_EQ(groups[8].linears.size(), 3u);
  EXPECT_EQ(groups[8].linears[2].base, layer + "self_attn.v_proj");
  EXPECT_EQ(groups[9].norm, "");
  EXPECT_EQ(groups[9].linears[0].base, layer + "self_attn.o_proj");
  EXPECT_EQ(groups[12].norm, layer + "input_layernorm_moe_gen");
  EXPECT_EQ(groups[14].norm, layer + "post_attention_layernorm_moe_gen");
  EXPECT_EQ(groups[14].linears[1].base, layer + "mlp_moe_gen.up_proj");
  EXPECT_EQ(groups[15].linears[0].base, layer + "mlp_moe_gen.down_proj");
}

FactorProblem ProblemOf(const FusionGroup& group, const StateDict& source, const Calibration& calibration,
                        ThreadPool& pool) {
  FactorProblem problem;
  for (const TrunkLinear& linear : group.linears) {
    bool finite = false;
    problem.linears.push_back(
        SourceMatrix::Open(source, linear.base + ".weight", linear.out, linear.in).value());
    problem.column_largest.push_back(ColumnLargest(problem.linears.back(), pool, finite));
    EXPECT_TRUE(finite);
  }
  problem.act = calibration.Get(group.linears[0].base, group.linears[0].in).value().mean_abs;
  return problem;
}

// The report has the exponent chosen and the error at each of 21, by another implementation; the calibration
// file has the factors.
TEST(ChannelFactorsTest, PublishedSearchAgreesWithTheFixture) {
  const auto source = MicroSource();
  const Calibration calibration = Calibration::Open(MicroPath("awq_calibration.safetensors")).value();
  const nlohmann::json report =
      nlohmann::json::parse(ReadTextFile(MicroPath("awq_report.json"), 1 << 20).value());
  ThreadPool pool(2);
  int groups = 0;
  for (const FusionGroup& group : FusionGroups(MicroConfig())) {
    if (group.norm.empty()) continue;
    ++groups;
    const FactorSearch search = SearchPublishedFactors(ProblemOf(group, *source, calibration, pool), pool);
    const nlohmann::json& expected = report.at(group.norm);
    EXPECT_NEAR(search.alpha, expected["alpha"].get<double>(), 1e-9) << group.norm;
    for (int i = 0; i < kFactorGrid; ++i) {
      const double error = expected["errors"][i].get<double>();
      EXPECT_NEAR(search.errors[i], error, 1e-4 * error) << group.norm << " at " << i;
    }
    const std::vector<float> given = calibration.Factors(group.norm, 128).value();
    ASSERT_EQ(given.size(), 128u);
    for (size_t c = 0; c < given.size(); ++c) EXPECT_NEAR(search.s[c], given[c], 4e-7 * given[c]);
  }
  EXPECT_EQ(groups, 8);
}

TEST(ChannelFactorsTest, ThreadsChangeNothing) {
  const auto source = MicroSource();
  const Calibration calibration = Calibration::Open(MicroPath("awq_calibration.safetensors")).value();
  ThreadPool one(1);
  ThreadPool three(3);
  const FactorProblem problem = ProblemOf(FusionGroups(MicroConfig())[0], *source, calibration, one);
  const std::vector<float> square(128, 1.0f);
  EXPECT_EQ(SearchPublishedFactors(problem, one).errors, SearchPublishedFactors(problem, three).errors);
  EXPECT_EQ(SearchBestFactors(problem, square, 64, one).errors,
            SearchBestFactors(problem, square, 64, three).errors);
}

// With searched scales the least error is lower, and no factors at all is one of the choices.
TEST(ChannelFactorsTest, BestSearchLosesLess) {
  const auto source = MicroSource();
  const Calibration calibration = Calibration::Open(MicroPath("awq_calibration.safetensors")).value();
  ThreadPool pool(2);
  for (const FusionGroup& group : FusionGroups(MicroConfig())) {
    if (group.norm.empty()) continue;
    const FactorProblem problem = ProblemOf(group, *source, calibration, pool);
    const auto statistics = calibration.Get(group.linears[0].base, 128).value();
    const FactorSearch published = SearchPublishedFactors(problem, pool);
    const FactorSearch best = SearchBestFactors(problem, statistics.mean_square, INT64_MAX, pool);
    ASSERT_EQ(best.errors.size(), 22u);
    const auto least = [](const FactorSearch& search) {
      return *std::min_element(search.errors.begin(), search.errors.end());
    };
    EXPECT_LT(least(best), 0.9 * least(published)) << group.norm;
    EXPECT_LE(least(best), best.errors[0]);
  }
}

TEST(CalibrationTest, RefusesWhatDoesNotFit) {
  const Calibration calibration = Calibration::Open(MicroPath("awq_calibration.safetensors")).value();
  const std::string base = "language_model.model.layers.0.mlp.down_proj";
  EXPECT_TRUE(calibration.Has(base));
  EXPECT_FALSE(calibration.Has("language_model.model.layers.7.mlp.down_proj"));
  EXPECT_THAT(calibration.Get(base, 192),
              Fails(absl::StatusCode::kInvalidArgument, testing::HasSubstr("176 inputs")));
  EXPECT_EQ(calibration.Factors("language_model.model.norm", 128).value().size(), 0u);
  EXPECT_THAT(calibration.Factors("language_model.model.layers.0.input_layernorm", 64),
              Fails(absl::StatusCode::kInvalidArgument, testing::HasSubstr("expected F32 [64]")));
}

}  // namespace
}  // namespace lancet
