#include "kernels/byte_gemm.h"

#include "gmock/gmock.h"
#include "kernels/quantise.h"
#include "tests/kernels/kernel_testing.h"

namespace lancet {
namespace {

// The header's definition.
std::vector<bf16> Reference(ConstMatrixView<bf16> x, ConstMatrixView<bf16> w) {
  const size_t cols = static_cast<size_t>(w.cols);
  std::vector<int8_t> a(cols);
  std::vector<int8_t> b(cols);
  std::vector<bf16> y;
  for (int64_t t = 0; t < x.rows; ++t) {
    const float x_factor = QuantiseInt8Row({x.row(t), cols}, absl::MakeSpan(a));
    for (int64_t r = 0; r < w.rows; ++r) {
      const float w_factor = QuantiseInt8Row({w.row(r), cols}, absl::MakeSpan(b));
      int32_t sum = 0;
      for (size_t c = 0; c < cols; ++c) sum += a[c] * b[c];
      y.push_back(ToBf16(static_cast<float>(sum) * w_factor * x_factor));
    }
  }
  return y;
}

class ByteGemmTest : public testing::TestWithParam<CpuIsa> {};

TEST_P(ByteGemmTest, EqualsTheReferenceToTheBitOnAnyNumberOfRowsAndThreads) {
  for (const int64_t cols : {1, 31, 64, 500}) {
    TestMatrix<bf16> w = RandomMatrix(67, cols, 3, 1);
    std::fill_n(w.view().row(5), cols, bf16{});
    for (int64_t c = 0; c < cols; ++c) w.view().row(6)[c] = ToBf16(-2.0f);  // the largest sums
    TestMatrix<bf16> x = RandomMatrix(19, cols, 0, 2, 4.0f);
    std::fill_n(x.view().row(3), cols, ToBf16(2.0f));
    const std::vector<bf16> expected = Reference(x.view(), w.view());
    for (const int threads : {1, 3}) {
      const auto ctx = MakeContext(GetParam(), threads);
      const auto packed = ByteWeights::Pack(*ctx, w.view());
      ASSERT_TRUE(packed.ok()) << packed.status();
      for (const int64_t tokens : {1, 2, 7, 8, 19}) {
        TestMatrix<bf16> y(tokens, 67, 2);
        ASSERT_TRUE(ByteGemm(*ctx, x.view().Rows(0, tokens), *packed, y.view()).ok());
        EXPECT_TRUE(y.PaddingUntouched());
        for (int64_t t = 0; t < tokens; ++t) {
          ASSERT_TRUE(SameBits<bf16>(y.view().row(t), expected.data() + t * 67, 67))
              << cols << " columns, " << tokens << " tokens, row " << t;
        }
      }
    }
  }
}

TEST_P(ByteGemmTest, NamesShapesThatDisagree) {
  const auto ctx = MakeContext(GetParam());
  const TestMatrix<bf16> w = RandomMatrix(4, 8, 0, 1);
  const auto packed = ByteWeights::Pack(*ctx, w.view());
  ASSERT_TRUE(packed.ok());
  EXPECT_EQ(packed->resident_bytes(), 4 * (32 + 4));
  const TestMatrix<bf16> x = RandomMatrix(2, 9, 0, 2);
  TestMatrix<bf16> y(2, 4);
  const absl::Status status = ByteGemm(*ctx, x.view(), *packed, y.view());
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("ByteGemm: x is [2, 9]"));
  EXPECT_FALSE(ByteGemm(*ctx, w.view().Rows(0, 2), *packed, MatrixView<bf16>(y.data.data(), 2, 3)).ok());
  EXPECT_FALSE(ByteWeights::Pack(*ctx, {nullptr, 1, int64_t{1} << 17}).ok());
  const TestMatrix<bf16> wide = RandomMatrix(1, int64_t{1} << 17, 0, 3);
  EXPECT_THAT(std::string(ByteWeights::Pack(*ctx, wide.view()).status().message()),
              testing::HasSubstr("131072 columns"));
}

INSTANTIATE_TEST_SUITE_P(Isa, ByteGemmTest, testing::ValuesIn(AvailableIsas()), IsaTestName);

}  // namespace
}  // namespace lancet
