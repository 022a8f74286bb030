// Which rows of a Linear go through which arithmetic; the arithmetic itself is tested in tests/kernels.
#include "worker/model/layer_linear.h"

#include "kernels/int8_gemm.h"
#include "tests/kernels/kernel_testing.h"
#include "tests/testing/status_matchers.h"

namespace lancet {
namespace {

class LayerLinearTest : public testing::TestWithParam<LinearMode> {
 protected:
  static constexpr int64_t kRows = 32;
  static constexpr int64_t kCols = 64;
  static constexpr int64_t kTokens = 9;

  void SetUp() override {
    TestRandom random(1);
    for (uint8_t& byte : codes_) byte = static_cast<uint8_t>(random.Bits());
  }
  Nvfp4MatrixView view() const {
    return {kRows, kCols, codes_.data(), kCols / 2, scales_.data(), kCols / 16};
  }
  LayerLinear Make(const LinearChoice& choice, bool single_rows) const {
    auto linear = LayerLinear::Create(*ctx_, {view()}, choice, single_rows);
    EXPECT_THAT(linear, IsOk());
    return *std::move(linear);
  }
  TestMatrix<bf16> Run(const LayerLinear& linear, absl::Span<const uint8_t> single) const {
    TestMatrix<bf16> y(kTokens, kRows);
    EXPECT_THAT(linear.Run(*ctx_, x_.view(), single, bias_, y.view()), IsOk());
    return y;
  }

  const std::unique_ptr<KernelContext> ctx_ = MakeContext(DetectCpuIsa());
  std::vector<uint8_t> codes_ = std::vector<uint8_t>(kRows * kCols / 2);
  const std::vector<bf16> scales_ = RandomVector(kRows * kCols / 16, 3, 0.001f, 0.02f);
  const std::vector<bf16> bias_ = RandomVector(kRows, 4);
  const TestMatrix<bf16> x_ = RandomMatrix(kTokens, kCols, 4, 5);
};

TEST_P(LayerLinearTest, SingleRowsAreMultipliedAsEver) {
  const LayerLinear plain = Make({}, false);
  const LayerLinear linear = Make({GetParam(), 0.01f}, true);
  EXPECT_EQ(linear.rows(), kRows);
  EXPECT_EQ(linear.cols(), kCols);
  const TestMatrix<bf16> w4a16 = Run(plain, {});
  const TestMatrix<bf16> all = Run(linear, {});
  const std::vector<uint8_t> some = {1, 0, 0, 1, 1, 0, 0, 0, 1};
  const TestMatrix<bf16> mixed = Run(linear, some);
  const TestMatrix<bf16> single = Run(linear, std::vector<uint8_t>(kTokens, 1));
  const TestMatrix<bf16> none = Run(linear, std::vector<uint8_t>(kTokens, 0));
  for (int64_t t = 0; t < kTokens; ++t) {
    EXPECT_FALSE(SameBits(w4a16.view().row(t), all.view().row(t), kRows));
    const TestMatrix<bf16>& expected = some[t] != 0 ? w4a16 : all;
    EXPECT_TRUE(SameBits(mixed.view().row(t), expected.view().row(t), kRows)) << "token " << t;
  }
  EXPECT_TRUE(SameBits(single.data.data(), w4a16.data.data(), kTokens * kRows));
  EXPECT_TRUE(SameBits(none.data.data(), all.data.data(), kTokens * kRows));

  TestMatrix<float> sums(kTokens, kRows);
  ASSERT_THAT(linear.Run(*ctx_, x_.view(), some, sums.view()), IsOk());
  for (int64_t t = 0; t < kTokens; ++t) {
    for (int64_t r = 0; r < kRows; ++r) {
      const float with_bias = sums.view().row(t)[r] + ToFloat(bias_[r]);
      EXPECT_NEAR(with_bias, ToFloat(mixed.view().row(t)[r]), HalfUlp(with_bias));
    }
  }
}

// Expanding a part on the way to the file or on the way to the product is the same.
TEST_P(LayerLinearTest, PartsInBf16BringTheOthersWithThem) {
  const LinearView quantised{false, view(), {}};
  const std::vector<bf16> expanded = StackBf16(absl::MakeConstSpan(&quantised, 1));
  const LinearView kept{true, {}, {expanded.data(), kRows, kCols}};
  const auto mixed = LayerLinear::Create(*ctx_, {quantised, kept}, {GetParam(), 0.01f}, true);
  ASSERT_THAT(mixed, IsOk());
  EXPECT_EQ(mixed->rows(), 2 * kRows);
  EXPECT_EQ(mixed->cols(), kCols);
  std::vector<bf16> bias = bias_;
  bias.insert(bias.end(), bias_.begin(), bias_.end());
  TestMatrix<bf16> y(kTokens, 2 * kRows);
  const std::vector<uint8_t> some = {1, 0, 0, 1, 1, 0, 0, 0, 1};
  ASSERT_THAT(mixed->Run(*ctx_, x_.view(), some, bias, y.view()), IsOk());
  const TestMatrix<bf16> w4a16 = Run(Make({}, false), {});
  for (int64_t t = 0; t < kTokens; ++t) {
    const bf16* row = y.view().row(t);
    EXPECT_TRUE(SameBits(row, row + kRows, kRows)) << "token " << t;
    for (int64_t r = 0; r < kRows; ++r) {
      const float expected = ToFloat(w4a16.view().row(t)[r]);
      EXPECT_NEAR(ToFloat(row[r]), expected, 2 * HalfUlp(expected)) << t << ", " << r;
    }
  }
  TestMatrix<float> sums(kTokens, 2 * kRows);
  ASSERT_THAT(mixed->Run(*ctx_, x_.view(), some, sums.view()), IsOk());
  EXPECT_NEAR(sums.view().row(3)[1] + ToFloat(bias_[1]), ToFloat(y.view().row(3)[1]),
              HalfUlp(ToFloat(y.view().row(3)[1])) * 1.01f);
  const LinearView narrow{true, {}, {expanded.data(), kRows, kCols - 16}};
  EXPECT_THAT(LayerLinear::Create(*ctx_, {kept, narrow}, {}, false),
              Fails(absl::StatusCode::kInvalidArgument, testing::HasSubstr("48 columns")));
}

TEST(StackBf16Test, TakesPartsInTurns) {
  std::vector<bf16> a, b;
  for (int i = 0; i < 4; ++i) a.push_back(ToBf16(static_cast<float>(i))), b.push_back(ToBf16(10.0f + i));
  const std::vector<LinearView> parts = {{true, {}, {a.data(), 4, 1}}, {true, {}, {b.data(), 4, 1}}};
  std::vector<float> turns, whole;
  for (const bf16 x : StackBf16(parts, 2)) turns.push_back(ToFloat(x));
  for (const bf16 x : StackBf16(parts)) whole.push_back(ToFloat(x));
  EXPECT_EQ(turns, (std::vector<float>{0, 1, 10, 11, 2, 3, 12, 13}));
  EXPECT_EQ(whole, (std::vector<float>{0, 1, 2, 3, 10, 11, 12, 13}));
}

TEST_P(LayerLinearTest, RefusesSingleRowsItHasNoWeightsFor) {
  const LayerLinear linear = Make({GetParam(), 1.0f}, false);
  TestMatrix<bf16> y(kTokens, kRows);
  std::vector<uint8_t> single(kTokens, 0);
  EXPECT_THAT(linear.Run(*ctx_, x_.view(), single, bias_, y.view()), IsOk());
  single[2] = 1;
  EXPECT_THAT(linear.Run(*ctx_, x_.view(), single, bias_, y.view()),
              Fails(absl::StatusCode::kFailedPrecondition, testing::HasSubstr("single rows")));
  single.resize(4);
  EXPECT_THAT(linear.Run(*ctx_, x_.view(), single, bias_, y.view()),
              Fails(absl::StatusCode::kInvalidArgument, testing::HasSubstr("single has 4")));
}

TEST(LayerLinearInt8Test, AllRowsAreMultipliedAlike) {
  const auto ctx = MakeContext(DetectCpuIsa());
  std::vector<uint8_t> codes(16 * 32 / 2, 0x5b);
  const std::vector<bf16> scales = RandomVector(16 * 32 / 16, 3, 0.001f, 0.02f);
  const Nvfp4MatrixView view = {16, 32, codes.data(), 16, scales.data(), 2};
  const auto linear = LayerLinear::Create(*ctx, {view}, {LinearMode::kW4A8Int8}, false);
  ASSERT_THAT(linear, IsOk());
  const TestMatrix<bf16> x = RandomMatrix(3, 32, 0, 5);
  TestMatrix<bf16> expected(3, 16);
  ASSERT_THAT(Int8Gemm(*ctx, x.view(), *Nvfp4Weights::Pack(*ctx, {view}), {}, expected.view()), IsOk());
  TestMatrix<bf16> y(3, 16);
  ASSERT_THAT(linear->Run(*ctx, x.view(), std::vector<uint8_t>{0, 1, 0}, {}, y.view()), IsOk());
  EXPECT_TRUE(SameBits(y.data.data(), expected.data.data(), 3 * 16));
  TestMatrix<float> sums(3, 16);
  ASSERT_THAT(linear->Run(*ctx, x.view(), {}, sums.view()), IsOk());
  for (size_t i = 0; i < sums.data.size(); ++i) EXPECT_EQ(ToBf16(sums.data[i]).bits, y.data[i].bits);
}

INSTANTIATE_TEST_SUITE_P(Modes, LayerLinearTest, testing::Values(LinearMode::kW4A8Fp8, LinearMode::kW4A4),
                         [](const auto& mode) { return std::string(LinearModeName(mode.param)); });

}  // namespace
}  // namespace lancet
