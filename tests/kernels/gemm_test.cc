#include "kernels/gemm.h"

#include "gmock/gmock.h"
#include "kernels/reference/trunk_ref.h"
#include "tests/kernels/kernel_testing.h"

namespace lancet {
namespace {

class DenseLinearTest : public testing::TestWithParam<CpuIsa> {};

TEST_P(DenseLinearTest, MatchesReference) {
  const auto ctx = MakeContext(GetParam());
  ctx->BindCallingThread();
  for (const int64_t rows : {1, 5, 130}) {
    for (const int64_t cols : {16, 48, 177}) {
      const TestMatrix<bf16> weight = RandomMatrix(rows, cols, 3, rows + cols, 0.1f);
      const std::vector<bf16> bias = RandomVector(rows, 5);
      std::vector<float> dense;
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < cols; ++c) dense.push_back(ToFloat(weight.view().row(r)[c]));
      }
      for (const bool with_bias : {false, true}) {
        const absl::Span<const bf16> used = with_bias ? absl::MakeSpan(bias) : absl::Span<const bf16>();
        auto linear = DenseLinear::Create(*ctx, weight.view(), used);
        ASSERT_TRUE(linear.ok()) << linear.status();
        for (const int64_t tokens : {0, 1, 3, 17, 258}) {
          SCOPED_TRACE(testing::Message() << rows << " rows, " << cols << " cols, " << tokens << " tokens");
          for (const int64_t pad : {0, 8}) {
            const TestMatrix<bf16> x = RandomMatrix(tokens, cols, pad, tokens + 1);
            TestMatrix<bf16> y(tokens, rows, pad);
            const absl::Status status = linear->Forward(*ctx, x.view(), y.view());
            ASSERT_TRUE(status.ok()) << status;
            EXPECT_TRUE(y.PaddingUntouched());
            const std::vector<double> exact = reference::Linear(x.view(), dense, rows, used);
            const std::vector<double> magnitude = reference::LinearMagnitude(x.view(), dense, rows);
            for (int64_t t = 0; t < tokens; ++t) {
              for (int64_t r = 0; r < rows; ++r) {
                const double value = exact[t * rows + r];
                // One rounding, and f32 sums in any order.
                ASSERT_NEAR(ToFloat(y.view().row(t)[r]), value,
                            HalfUlp(value) + (magnitude[t * rows + r] + 1) * cols * 0x1p-23);
              }
            }
          }
        }
      }
    }
  }
}

TEST_P(DenseLinearTest, RowsDoNotDependOnTheirNeighboursOrOnThreads) {
  for (const auto& [rows, cols] :
       std::vector<std::pair<int64_t, int64_t>>{{48, 512}, {512, 48}, {240, 720}}) {
    const TestMatrix<bf16> weight = RandomMatrix(rows, cols, 0, 3, 0.1f);
    const TestMatrix<bf16> x = RandomMatrix(130, cols, 0, 4);
    TestMatrix<bf16> expected(130, rows);
    for (const int threads : {1, 2, 3}) {
      const auto ctx = MakeContext(GetParam(), threads);
      ctx->BindCallingThread();
      auto linear = DenseLinear::Create(*ctx, weight.view(), {});
      ASSERT_TRUE(linear.ok()) << linear.status();
      TestMatrix<bf16> y(130, rows);
      ASSERT_TRUE(linear->Forward(*ctx, x.view(), y.view()).ok());
      if (threads == 1) expected = y;
      EXPECT_TRUE(SameBits(y.data.data(), expected.data.data(), 130 * rows)) << threads << " threads";
      // More row counts than primitives are kept for one layer.
      for (int64_t tokens = 1; tokens <= 40; ++tokens) {
        TestMatrix<bf16> some(tokens, rows);
        ASSERT_TRUE(linear->Forward(*ctx, x.view().Rows(130 - tokens, tokens), some.view()).ok());
        ASSERT_TRUE(SameBits(some.data.data(), expected.view().row(130 - tokens), tokens * rows))
            << tokens << " of 130 rows, weight [" << rows << ", " << cols << "]";
      }
    }
  }
}

TEST_P(DenseLinearTest, FloatSumsAreNotRounded) {
  const auto ctx = MakeContext(GetParam());
  ctx->BindCallingThread();
  for (const int64_t cols : {16, 177, 855}) {
    const TestMatrix<bf16> weight = RandomMatrix(130, cols, 3, cols, 0.1f);
    std::vector<float> dense;
    for (int64_t r = 0; r < 130; ++r) {
      for (int64_t c = 0; c < cols; ++c) dense.push_back(ToFloat(weight.view().row(r)[c]));
    }
    auto linear = DenseLinear::Create(*ctx, weight.view(), {});
    ASSERT_TRUE(linear.ok()) << linear.status();
    for (const int64_t tokens : {0, 1, 17, 258}) {
      for (const int64_t pad : {0, 8}) {
        const TestMatrix<bf16> x = RandomMatrix(tokens, cols, pad, tokens + 1);
        TestMatrix<float> y(tokens, 130, pad);
        const absl::Status status = linear->Forward(*ctx, x.view(), y.view());
        ASSERT_TRUE(status.ok()) << status;
        EXPECT_TRUE(y.PaddingUntouched());
        const std::vector<double> exact = reference::Linear(x.view(), dense, 130, {});
        const std::vector<double> magnitude = reference::LinearMagnitude(x.view(), dense, 130);
        for (int64_t t = 0; t < tokens; ++t) {
          for (int64_t r = 0; r < 130; ++r) {
            ASSERT_NEAR(y.view().row(t)[r], exact[t * 130 + r], magnitude[t * 130 + r] * cols * 0x1p-23);
          }
        }
        // The rounded product is the same sums, rounded.
        TestMatrix<bf16> rounded(tokens, 130);
        ASSERT_TRUE(linear->Forward(*ctx, x.view(), rounded.view()).ok());
        for (int64_t t = 0; t < tokens; ++t) {
          for (int64_t r = 0; r < 130; ++r) {
            const double value = y.view().row(t)[r];
            ASSERT_NEAR(ToFloat(rounded.view().row(t)[r]), value,
                        HalfUlp(value) + magnitude[t * 130 + r] * cols * 0x1p-23);
          }
        }
      }
    }
  }
}

TEST_P(DenseLinearTest, NamesShapesThatDisagree) {
  const auto ctx = MakeContext(GetParam());
  const TestMatrix<bf16> weight = RandomMatrix(4, 8, 0, 1);
  const std::vector<bf16> bias(3);
  EXPECT_EQ(DenseLinear::Create(*ctx, weight.view(), bias).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(DenseLinear::Create(*ctx, weight.view().Cols(0, 0), {}).status().code(),
            absl::StatusCode::kInvalidArgument);
  auto linear = DenseLinear::Create(*ctx, weight.view(), {});
  ASSERT_TRUE(linear.ok());
  EXPECT_EQ(linear->rows(), 4);
  EXPECT_EQ(linear->cols(), 8);
  TestMatrix<bf16> x(2, 7);
  TestMatrix<bf16> y(2, 4);
  EXPECT_THAT(std::string(linear->Forward(*ctx, x.view(), y.view()).message()),
              testing::HasSubstr("x is [2, 7]"));
}

INSTANTIATE_TEST_SUITE_P(Isa, DenseLinearTest, testing::ValuesIn(AvailableIsas()), IsaTestName);

}  // namespace
}  // namespace lancet
