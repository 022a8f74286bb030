#include "kernels/bf16_gemm.h"

#include "gmock/gmock.h"
#include "kernels/reference/trunk_ref.h"
#include "tests/kernels/kernel_testing.h"

namespace lancet {
namespace {

class Bf16GemmTest : public testing::TestWithParam<CpuIsa> {};

std::vector<float> Dense(ConstMatrixView<bf16> m) {
  std::vector<float> dense;
  for (int64_t r = 0; r < m.rows; ++r) {
    for (int64_t c = 0; c < m.cols; ++c) dense.push_back(ToFloat(m.row(r)[c]));
  }
  return dense;
}

TEST_P(Bf16GemmTest, MatchesReference) {
  const auto ctx = MakeContext(GetParam());
  for (const int64_t rows : {1, 15, 16, 130, 700}) {
    for (const int64_t cols : {2, 48, 1200}) {
      const TestMatrix<bf16> weight = RandomMatrix(rows, cols, 4, rows + cols, 0.1f);
      const auto packed = Bf16Weights::Pack(*ctx, weight.view());
      ASSERT_TRUE(packed.ok()) << packed.status();
      for (const int64_t tokens : {0, 1, 3, 17}) {
        SCOPED_TRACE(testing::Message() << rows << " rows, " << cols << " cols, " << tokens << " tokens");
        const TestMatrix<bf16> x = RandomMatrix(tokens, cols, 8, tokens + 1);
        TestMatrix<bf16> y(tokens, rows, 8);
        const absl::Status status = Bf16Gemm(*ctx, x.view(), *packed, y.view());
        ASSERT_TRUE(status.ok()) << status;
        EXPECT_TRUE(y.PaddingUntouched());
        const std::vector<double> exact = reference::Linear(x.view(), Dense(weight.view()), rows, {});
        const std::vector<double> magnitude =
            reference::LinearMagnitude(x.view(), Dense(weight.view()), rows);
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

TEST_P(Bf16GemmTest, RowsDoNotDependOnTheirNeighboursOrOnThreads) {
  const TestMatrix<bf16> weight = RandomMatrix(336, 1536, 0, 3, 0.1f);
  const TestMatrix<bf16> x = RandomMatrix(40, 1536, 0, 4);
  TestMatrix<bf16> expected(40, 336);
  for (const int threads : {1, 2, 3}) {
    const auto ctx = MakeContext(GetParam(), threads);
    const auto packed = Bf16Weights::Pack(*ctx, weight.view());
    ASSERT_TRUE(packed.ok());
    TestMatrix<bf16> y(40, 336);
    ASSERT_TRUE(Bf16Gemm(*ctx, x.view(), *packed, y.view()).ok());
    if (threads == 1) expected = y;
    EXPECT_TRUE(SameBits(y.data.data(), expected.data.data(), 40 * 336)) << threads << " threads";
    for (int64_t tokens = 1; tokens <= 40; ++tokens) {
      TestMatrix<bf16> some(tokens, 336);
      ASSERT_TRUE(Bf16Gemm(*ctx, x.view().Rows(40 - tokens, tokens), *packed, some.view()).ok());
      ASSERT_TRUE(SameBits(some.data.data(), expected.view().row(40 - tokens), tokens * 336)) << tokens;
    }
  }
}

TEST_P(Bf16GemmTest, RefusesShapesThatDisagree) {
  const auto ctx = MakeContext(GetParam());
  const TestMatrix<bf16> odd = RandomMatrix(4, 3, 0, 1);
  EXPECT_EQ(Bf16Weights::Pack(*ctx, odd.view()).status().code(), absl::StatusCode::kInvalidArgument);
  const TestMatrix<bf16> weight = RandomMatrix(4, 6, 0, 1);
  const auto packed = Bf16Weights::Pack(*ctx, weight.view());
  ASSERT_TRUE(packed.ok());
  const TestMatrix<bf16> x = RandomMatrix(2, 6, 0, 1);
  TestMatrix<bf16> narrow(2, 3);
  EXPECT_EQ(Bf16Gemm(*ctx, x.view(), *packed, narrow.view()).code(), absl::StatusCode::kInvalidArgument);
}

INSTANTIATE_TEST_SUITE_P(Isa, Bf16GemmTest, testing::ValuesIn(AvailableIsas()), IsaTestName);

}  // namespace
}  // namespace lancet
