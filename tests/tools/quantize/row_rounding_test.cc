// Codes and scales against the goldens, and searches against the plain way to do them.
#include "tools/quantize/row_rounding.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "common/bf16.h"
#include "common/safetensors.h"
#include "kernels/number_formats.h"
#include "kernels/quantise.h"
#include "tests/testing/status_matchers.h"

namespace lancet {
namespace {

std::vector<float> Weights(int64_t n, unsigned seed, float deviation = 0.02f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, deviation);
  std::vector<float> values(n);
  for (float& value : values) value = RoundToBf16(normal(random));
  return values;
}

float Largest(absl::Span<const float> values) {
  float largest = 0;
  for (const float value : values) largest = std::max(largest, std::fabs(value));
  return largest;
}

class GoldenRoundingTest : public ::testing::TestWithParam<std::string> {};

TEST_P(GoldenRoundingTest, IsThePublishedRecipeToTheBit) {
  const auto file = SafetensorsFile::Open(LANCET_TEST_DATA "/golden/nvfp4.safetensors").value();
  const auto get = [&](const char* what) { return file->Get(GetParam() + "." + what).value(); };
  const TensorView weight = get("weight");
  const int64_t rows = weight.shape[0];
  const int64_t cols = weight.shape[1];
  std::vector<uint8_t> codes(cols / 2);
  std::vector<float> scales(cols / 16);
  for (int64_t r = 0; r < rows; ++r) {
    RoundToLargest(absl::MakeConstSpan(weight.as<float>() + r * cols, cols), absl::MakeSpan(codes),
                   absl::MakeSpan(scales));
    for (int64_t i = 0; i < cols / 2; ++i) {
      ASSERT_EQ(codes[i], get("qweight").as<uint8_t>()[r * cols / 2 + i]) << r << ", " << i;
    }
    for (int64_t b = 0; b < cols / 16; ++b) {
      const int64_t at = r * (cols / 16) + b;
      ASSERT_EQ(scales[b], get("scale").as<float>()[at]) << r << ", " << b;
      ASSERT_EQ(ToE4m3(scales[b]), get("scales_fp8").as<uint8_t>()[at]) << r << ", " << b;
      ASSERT_EQ(ToBf16(scales[b]), get("scales_bf16").as<bf16>()[at]) << r << ", " << b;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Groups, GoldenRoundingTest, ::testing::Values("gauss", "edge", "gemm", "odd"));

TEST(LargestRoundingErrorTest, IsWhatRoundingLeaves) {
  const std::vector<float> v = Weights(64, 1);
  std::vector<float> weights = Weights(64, 2);
  for (float& weight : weights) weight = std::fabs(weight);
  std::vector<uint8_t> codes(32);
  std::vector<float> scales(4);
  RoundToLargest(v, absl::MakeSpan(codes), absl::MakeSpan(scales));
  double weighted = 0;
  double plain = 0;
  for (int i = 0; i < 64; ++i) {
    const uint8_t code = i % 2 == 0 ? codes[i / 2] & 15 : codes[i / 2] >> 4;
    const double off = FromE2m1(code) * scales[i / 16] - v[i];
    weighted += weights[i] * off * off;
    plain += off * off;
  }
  EXPECT_NEAR(LargestRoundingError(v, weights), weighted, 1e-5 * weighted);
  EXPECT_NEAR(LargestRoundingError(v, {}), plain, 1e-5 * plain);
}

TEST(ScaleGridTest, HasScalesUpToWhatASearchMayWant) {
  constexpr int kLast = ScaleGrid::kScales - 1;
  for (const float largest : {1e-30f, 0.003f, 0.2f, 0.21875f, 1.0f, 448.0f * 3.5f, 1e30f}) {
    const ScaleGrid grid = ScaleGrid::For(largest);
    int exponent = 0;
    EXPECT_EQ(std::frexp(grid.factor(), &exponent), 0.5f) << largest;  // a power of two
    EXPECT_EQ(grid.scale(kLast), 448.0f * grid.factor());
    EXPECT_GE(grid.scale(kLast) * 3.5f, largest);
    if (largest > 1e-25f) {
      EXPECT_LT(grid.scale(kLast) * 3.5f, largest * 2);
    }
    for (int index = 0; index <= kLast; ++index) {
      if (index > 0) {
        EXPECT_GT(grid.scale(index), grid.scale(index - 1));
      }
      EXPECT_EQ(RoundToBf16(grid.scale(index)), grid.scale(index));
      EXPECT_EQ(grid.byte(index), EncodeScale(ToBf16(grid.scale(index)), grid.factor()));
      EXPECT_GT(grid.byte(index), 0);
      EXPECT_EQ(grid.e4m3_scales()[index], FromE4m3(grid.byte(index)) * grid.factor());
      EXPECT_EQ(grid.FirstNotBelow(grid.scale(index)), index);
      EXPECT_EQ(grid.FirstNotBelow(grid.scale(index) * 1.001f), std::min(index + 1, kLast));
    }
    EXPECT_EQ(grid.FirstNotBelow(0.0f), 0);
  }
  EXPECT_EQ(ScaleGrid::For(0.0f).factor(), 1.0f);
  EXPECT_EQ(ScaleGrid::For(1.0f).FirstNotBelow(1e9f), kLast);
}

struct BlockErrors {
  double scale = 0;  // with the scale itself
  double e4m3 = 0;   // with its E4M3 number
  int largest_code = 0;
};

BlockErrors ErrorsOf(const ScaleGrid& grid, int index, absl::Span<const uint8_t> codes,
                     absl::Span<const float> v, absl::Span<const float> weights) {
  BlockErrors errors;
  for (int i = 0; i < 16; ++i) {
    const uint8_t code = i % 2 == 0 ? codes[i / 2] & 15 : codes[i / 2] >> 4;
    const double weight = weights.empty() ? 1.0 : weights[i];
    const double d = FromE2m1(code) * grid.scale(index) - v[i];
    const double e = FromE2m1(code) * FromE4m3(grid.byte(index)) * grid.factor() - v[i];
    errors.scale += weight * d * d;
    errors.e4m3 += weight * e * e;
    errors.largest_code = std::max(errors.largest_code, code & 7);
  }
  return errors;
}

// Tries every scale there is for one block.
double LeastError(const ScaleGrid& grid, absl::Span<const float> v, absl::Span<const float> weights) {
  double least = INFINITY;
  for (int index = 0; index < ScaleGrid::kScales; ++index) {
    std::vector<uint8_t> codes(8);
    for (int i = 0; i < 16; ++i) {
      codes[i / 2] = static_cast<uint8_t>(codes[i / 2] | ToE2m1(v[i] / grid.scale(index)) << (i % 2 * 4));
    }
    const BlockErrors errors = ErrorsOf(grid, index, codes, v, weights);
    least = std::min(least, errors.scale + errors.e4m3);
  }
  return least / 2;
}

TEST(SearchScalesTest, FindsTheLeastErrorOfAllScales) {
  std::mt19937 random(3);
  std::uniform_real_distribution<float> uniform(0.5f, 2.0f);
  const std::vector<float> v = Weights(16 * 200, 4);
  std::vector<float> weights(v.size());
  for (float& weight : weights) weight = uniform(random);
  const ScaleGrid grid = ScaleGrid::For(Largest(v));
  for (const bool weighted : {false, true}) {
    double sum = 0;
    double least = 0;
    std::vector<uint8_t> codes(8);
    uint16_t index = 0;
    for (size_t begin = 0; begin < v.size(); begin += 16) {
      const auto block = absl::MakeConstSpan(v).subspan(begin, 16);
      const auto block_weights =
          weighted ? absl::MakeConstSpan(weights).subspan(begin, 16) : absl::Span<const float>();
      const double error =
          SearchScales(grid, block, block_weights, absl::MakeSpan(codes), absl::MakeSpan(&index, 1));
      const BlockErrors errors = ErrorsOf(grid, index, codes, block, block_weights);
      EXPECT_NEAR(error, (errors.scale + errors.e4m3) / 2, 1e-5 * error);
      EXPECT_GE(errors.largest_code, 6);
      sum += error;
      least += LeastError(grid, block, block_weights);
    }
    // Scales that clip very much are not tried.
    EXPECT_LE(sum, least * 1.001);
    EXPECT_GE(sum, least * 0.999);
  }
}

// What the header says.
TEST(SearchScalesTest, LosesLessThanScalesFromTheLargest) {
  const std::vector<float> v = Weights(1 << 16, 5);
  double norm = 0;
  for (const float value : v) norm += value * value;
  EXPECT_NEAR(std::sqrt(LargestRoundingError(v, {}) / norm), 0.0942, 0.0006);
  const ScaleGrid grid = ScaleGrid::For(Largest(v));
  std::vector<uint8_t> codes(v.size() / 2);
  std::vector<uint16_t> indices(v.size() / 16);
  SearchScales(grid, v, {}, absl::MakeSpan(codes), absl::MakeSpan(indices));
  BlockErrors sums;
  for (size_t b = 0; b < indices.size(); ++b) {
    const BlockErrors errors = ErrorsOf(grid, indices[b], absl::MakeConstSpan(codes).subspan(b * 8, 8),
                                        absl::MakeConstSpan(v).subspan(b * 16, 16), {});
    sums.scale += errors.scale;
    sums.e4m3 += errors.e4m3;
  }
  EXPECT_NEAR(std::sqrt(sums.scale / norm), 0.0787, 0.0006);
  EXPECT_NEAR(std::sqrt(sums.e4m3 / norm), 0.0815, 0.0006);
}

TEST(SearchScalesTest, TakesBlocksOfZerosAndOfTinyNumbers) {
  std::vector<float> v(48, 0.0f);
  v[0] = 1.0f;
  v[17] = -1e-12f;
  std::vector<uint8_t> codes(24);
  std::vector<uint16_t> indices(3);
  SearchScales(ScaleGrid::For(1.0f), v, {}, absl::MakeSpan(codes), absl::MakeSpan(indices));
  EXPECT_GE(codes[0] & 7, 6);
  for (int i = 1; i < 24; ++i) EXPECT_EQ(codes[i] & 0x77, 0) << i;
  EXPECT_EQ(indices[1], 0);
  EXPECT_EQ(indices[2], 0);
}

}  // namespace
}  // namespace lancet
