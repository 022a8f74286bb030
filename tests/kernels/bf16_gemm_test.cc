#include "kernels/bf16_gemm.h"

#include "gmock/gmock.h"
#include "kernels/reference/trunk_ref.h"
#include "tests/kernels/kernel_testing.h"

namespace lancet {
namespace {

using ::testing::HasSubstr;

class Bf16GemmTest : public testing::TestWithParam<CpuIsa> {};

std::vector<float> Dense(ConstMatrixView<bf16> m) {
  std::vector<float> dense;
  for (int64_t r = 0; r < m.rows; ++r) {
    for (int64_t c = 0; c < m.cols; ++c) dense.push_back(ToFloat(m.row(r)[c]));
  }
  return dense;
}

// All products of x and `weight`, strided and not, against sums in f64.
void ExpectProducts(const KernelContext& ctx, const TestMatrix<bf16>& weight, int64_t tokens) {
  const int64_t rows = weight.rows;
  const int64_t cols = weight.cols;
  SCOPED_TRACE(testing::Message() << rows << " rows, " << cols << " cols, " << tokens << " tokens");
  const auto packed = Bf16Weights::Pack(ctx, weight.view());
  ASSERT_TRUE(packed.ok()) << packed.status();
  const std::vector<float> dense = Dense(weight.view());
  const std::vector<bf16> bias = RandomVector(rows, 5);
  for (const int64_t pad : {0, 8}) {
    const TestMatrix<bf16> x = RandomMatrix(tokens, cols, pad, tokens + 1);
    const std::vector<double> exact = reference::Linear(x.view(), dense, rows, {});
    const std::vector<double> magnitude = reference::LinearMagnitude(x.view(), dense, rows);
    TestMatrix<float> sums(tokens, rows, pad);
    ASSERT_TRUE(Bf16Gemm(ctx, x.view(), *packed, sums.view()).ok());
    EXPECT_TRUE(sums.PaddingUntouched());
    for (const bool with_bias : {false, true}) {
      const absl::Span<const bf16> used = with_bias ? absl::MakeSpan(bias) : absl::Span<const bf16>();
      TestMatrix<bf16> y(tokens, rows, pad);
      const absl::Status status = Bf16Gemm(ctx, x.view(), *packed, used, y.view());
      ASSERT_TRUE(status.ok()) << status;
      EXPECT_TRUE(y.PaddingUntouched());
      for (int64_t t = 0; t < tokens; ++t) {
        for (int64_t r = 0; r < rows; ++r) {
          const float added = with_bias ? ToFloat(bias[r]) : 0.0f;
          const double value = exact[t * rows + r] + added;
          const double order = magnitude[t * rows + r] * cols * 0x1p-23;  // f32 sums in any order
          const float sum = sums.view().row(t)[r];
          ASSERT_NEAR(sum, exact[t * rows + r], order);
          ASSERT_NEAR(ToFloat(y.view().row(t)[r]), value, HalfUlp(value) + order + cols * 0x1p-23);
          // One rounding, of the same sum and the bias.
          ASSERT_EQ(y.view().row(t)[r].bits, ToBf16(sum + added).bits);
        }
      }
    }
  }
}

TEST_P(Bf16GemmTest, MatchesReference) {
  const auto ctx = MakeContext(GetParam());
  for (const int64_t rows : {1, 5, 15, 16, 130, 700}) {
    for (const int64_t cols : {1, 2, 16, 48, 1200}) {
      const TestMatrix<bf16> weight = RandomMatrix(rows, cols, 4, rows + cols, 0.1f);
      for (const int64_t tokens : {0, 1, 3, 17}) ExpectProducts(*ctx, weight, tokens);
    }
  }
  ExpectProducts(*ctx, RandomMatrix(130, 48, 3, 9, 0.1f), 258);
}

TEST_P(Bf16GemmTest, OddColumnsArePaddedWithZeros) {
  const auto ctx = MakeContext(GetParam());
  // One and several slabs, and the last column alone in one; neighbours in memory are NaN.
  for (const int64_t cols : {3, 15, 17, 177, 513, 855, 1025, 1041}) {
    const TestMatrix<bf16> weight = RandomMatrix(130, cols, 3, cols, 0.1f);
    for (const int64_t tokens : {1, 8, 17}) ExpectProducts(*ctx, weight, tokens);
  }
}

TEST_P(Bf16GemmTest, RowsDoNotDependOnTheirNeighboursOrOnThreads) {
  for (const auto& [rows, cols] :
       std::vector<std::pair<int64_t, int64_t>>{{48, 512}, {512, 48}, {240, 720}, {336, 1536}, {33, 721}}) {
    SCOPED_TRACE(testing::Message() << "weight [" << rows << ", " << cols << "]");
    const TestMatrix<bf16> weight = RandomMatrix(rows, cols, 0, 3, 0.1f);
    const std::vector<bf16> bias = RandomVector(rows, 5);
    // More rows than the kernels take in one chunk.
    const int64_t all = rows * cols < 40000 ? 800 : 130;
    const TestMatrix<bf16> x = RandomMatrix(all, cols, 0, 4);
    TestMatrix<bf16> expected(all, rows);
    TestMatrix<float> expected_sums(all, rows);
    for (const int threads : {1, 2, 3}) {
      const auto ctx = MakeContext(GetParam(), threads);
      const auto packed = Bf16Weights::Pack(*ctx, weight.view());
      ASSERT_TRUE(packed.ok());
      TestMatrix<bf16> y(all, rows);
      TestMatrix<float> sums(all, rows);
      ASSERT_TRUE(Bf16Gemm(*ctx, x.view(), *packed, bias, y.view()).ok());
      ASSERT_TRUE(Bf16Gemm(*ctx, x.view(), *packed, sums.view()).ok());
      if (threads == 1) {
        expected = y;
        expected_sums = sums;
      }
      EXPECT_TRUE(SameBits(y.data.data(), expected.data.data(), all * rows)) << threads << " threads";
      EXPECT_TRUE(SameBits(sums.data.data(), expected_sums.data.data(), all * rows)) << threads << " threads";
      for (int64_t tokens = 1; tokens <= 40; ++tokens) {
        const ConstMatrixView<bf16> last = x.view().Rows(all - tokens, tokens);
        TestMatrix<bf16> some(tokens, rows);
        ASSERT_TRUE(Bf16Gemm(*ctx, last, *packed, bias, some.view()).ok());
        ASSERT_TRUE(SameBits(some.data.data(), expected.view().row(all - tokens), tokens * rows)) << tokens;
        TestMatrix<float> some_sums(tokens, rows);
        ASSERT_TRUE(Bf16Gemm(*ctx, last, *packed, some_sums.view()).ok());
        ASSERT_TRUE(SameBits(some_sums.data.data(), expected_sums.view().row(all - tokens), tokens * rows))
            << tokens;
      }
    }
  }
}

TEST_P(Bf16GemmTest, NothingToMultiply) {
  const auto ctx = MakeContext(GetParam());
  const TestMatrix<bf16> weight = RandomMatrix(3, 8, 0, 1);
  const std::vector<bf16> bias = RandomVector(3, 2);
  const TestMatrix<bf16> x = RandomMatrix(2, 8, 0, 1);

  const auto no_cols = Bf16Weights::Pack(*ctx, weight.view().Cols(0, 0));
  ASSERT_TRUE(no_cols.ok()) << no_cols.status();
  TestMatrix<bf16> y(2, 3);
  ASSERT_TRUE(Bf16Gemm(*ctx, x.view().Cols(0, 0), *no_cols, bias, y.view()).ok());
  TestMatrix<float> sums(2, 3);
  ASSERT_TRUE(Bf16Gemm(*ctx, x.view().Cols(0, 0), *no_cols, sums.view()).ok());
  for (int64_t t = 0; t < 2; ++t) {
    for (int64_t r = 0; r < 3; ++r) {
      EXPECT_EQ(y.view().row(t)[r].bits, bias[r].bits);
      EXPECT_EQ(sums.view().row(t)[r], 0.0f);
    }
  }

  const auto no_rows = Bf16Weights::Pack(*ctx, weight.view().Rows(0, 0));
  ASSERT_TRUE(no_rows.ok()) << no_rows.status();
  EXPECT_TRUE(Bf16Gemm(*ctx, x.view(), *no_rows, {}, y.view().Cols(0, 0)).ok());
  EXPECT_TRUE(Bf16Gemm(*ctx, x.view(), *no_rows, sums.view().Cols(0, 0)).ok());
}

TEST_P(Bf16GemmTest, NamesShapesThatDisagree) {
  const auto ctx = MakeContext(GetParam());
  const TestMatrix<bf16> weight = RandomMatrix(4, 6, 0, 1);
  EXPECT_EQ(Bf16Weights::Pack(*ctx, {weight.data.data(), 4, 6, 5}).status().code(),
            absl::StatusCode::kInvalidArgument);
  const auto packed = Bf16Weights::Pack(*ctx, weight.view());
  ASSERT_TRUE(packed.ok());
  EXPECT_EQ(packed->rows(), 4);
  EXPECT_EQ(packed->cols(), 6);
  const TestMatrix<bf16> x = RandomMatrix(2, 6, 0, 1);
  TestMatrix<bf16> y(2, 4);
  TestMatrix<bf16> narrow(2, 3);
  TestMatrix<float> narrow_sums(2, 3);
  const std::vector<bf16> bias(3);
  EXPECT_EQ(Bf16Gemm(*ctx, x.view(), *packed, {}, narrow.view()).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Bf16Gemm(*ctx, x.view(), *packed, narrow_sums.view()).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(Bf16Gemm(*ctx, x.view(), *packed, bias, y.view()).message()),
              HasSubstr("bias has 3 elements; expected 4"));
  EXPECT_THAT(std::string(Bf16Gemm(*ctx, x.view().Cols(0, 5), *packed, {}, y.view()).message()),
              HasSubstr("x is [2, 5]"));
}

INSTANTIATE_TEST_SUITE_P(Isa, Bf16GemmTest, testing::ValuesIn(AvailableIsas()), IsaTestName);

}  // namespace
}  // namespace lancet
