#include "kernels/nvfp4.h"

#include "gmock/gmock.h"
#include "kernels/reference/trunk_ref.h"
#include "tests/kernels/kernel_testing.h"

namespace lancet {
namespace {

struct Fp4 {
  std::vector<uint8_t> codes;
  std::vector<bf16> scales;
  Nvfp4MatrixView view;
};

// Random codes; a tenth of the scales are zero.
Fp4 RandomFp4(int64_t rows, int64_t cols, uint64_t seed) {
  Fp4 w;
  TestRandom random(seed);
  for (int64_t i = 0; i < rows * cols / 2; ++i) w.codes.push_back(static_cast<uint8_t>(random.Bits() & 255));
  for (int64_t i = 0; i < rows * cols / 16; ++i) {
    w.scales.push_back(random.Bits() % 10 == 0 ? bf16{} : ToBf16(random.Uniform(0.001f, 0.05f)));
  }
  w.view = {rows, cols, w.codes.data(), cols / 2, w.scales.data(), cols / 16};
  return w;
}

Nvfp4Weights Packed(const KernelContext& ctx, const Nvfp4MatrixView& view) {
  auto packed = Nvfp4Weights::Pack(ctx, {view});
  EXPECT_TRUE(packed.ok()) << packed.status();
  return *std::move(packed);
}

class Nvfp4Test : public testing::TestWithParam<CpuIsa> {};

// Any order of f32 sums of n products errs by at most n ulp of the sum of magnitudes; then one rounding.
double Tolerance(double exact, double magnitude, int64_t cols) {
  return HalfUlp(exact) + magnitude * static_cast<double>(cols) * 0x1p-23 + 1e-30;
}

TEST_P(Nvfp4Test, MatchesReference) {
  const auto ctx = MakeContext(GetParam());
  for (const int64_t rows : {1, 5, 130}) {
    for (const int64_t cols : {16, 176, 2064}) {
      const Fp4 w = RandomFp4(rows, cols, rows * 7 + cols);
      const std::vector<float> dense =
          reference::Nvfp4Dequantise(w.codes.data(), w.scales.data(), rows, cols);
      const Nvfp4Weights packed = Packed(*ctx, w.view);
      const std::vector<bf16> bias = RandomVector(rows, 5);
      for (const int64_t tokens : {0, 1, 3, 17, 258}) {
        if (tokens * rows * cols > 20'000'000) continue;
        SCOPED_TRACE(testing::Message() << rows << " rows, " << cols << " cols, " << tokens << " tokens");
        const TestMatrix<bf16> x = RandomMatrix(tokens, cols, 8, tokens + 1);
        TestMatrix<bf16> y(tokens, rows, 3);
        TestMatrix<float> sums(tokens, rows, 5);
        ASSERT_TRUE(Nvfp4Gemm(*ctx, x.view(), packed, bias, y.view()).ok());
        ASSERT_TRUE(Nvfp4Gemm(*ctx, x.view(), packed, sums.view()).ok());
        EXPECT_TRUE(y.PaddingUntouched());
        EXPECT_TRUE(sums.PaddingUntouched());
        const std::vector<double> exact = reference::Linear(x.view(), dense, rows, {});
        const std::vector<double> magnitude = reference::LinearMagnitude(x.view(), dense, rows);
        for (int64_t t = 0; t < tokens; ++t) {
          for (int64_t r = 0; r < rows; ++r) {
            const int64_t i = t * rows + r;
            const double with_bias = exact[i] + ToFloat(bias[r]);
            ASSERT_NEAR(ToFloat(y.view().row(t)[r]), with_bias,
                        Tolerance(with_bias, magnitude[i] + 1.0, cols));
            ASSERT_NEAR(sums.view().row(t)[r], exact[i], magnitude[i] * static_cast<double>(cols) * 0x1p-23);
          }
        }
      }
    }
  }
}

// A product with rows of the identity gives the expanded weights themselves: every code, exactly.
TEST_P(Nvfp4Test, ExpandsEveryCodeToTheRoundedProduct) {
  const auto ctx = MakeContext(GetParam());
  Fp4 w = RandomFp4(33, 32, 3);
  for (int i = 0; i < 256; ++i) w.codes[i] = static_cast<uint8_t>(i);
  const Nvfp4Weights packed = Packed(*ctx, w.view);
  TestMatrix<bf16> identity(32, 32);
  for (int64_t i = 0; i < 32; ++i) {
    for (int64_t j = 0; j < 32; ++j) identity.view().row(i)[j] = ToBf16(i == j ? 1.0f : 0.0f);
  }
  TestMatrix<float> y(32, 33);
  ASSERT_TRUE(Nvfp4Gemm(*ctx, identity.view(), packed, y.view()).ok());
  const std::vector<float> dense = reference::Nvfp4Dequantise(w.codes.data(), w.scales.data(), 33, 32);
  for (int64_t r = 0; r < 33; ++r) {
    for (int64_t c = 0; c < 32; ++c) EXPECT_EQ(y.view().row(c)[r], dense[r * 32 + c]) << r << ", " << c;
  }
}

// Scales at the ends of the range, where a product with 1.5 is not half of one with 3.
TEST_P(Nvfp4Test, ExpandsScalesAtTheEndsOfTheRange) {
  if (GetParam() == CpuIsa::kAvx512Bf16) GTEST_SKIP() << "its products take subnormal numbers for zero";
  const auto ctx = MakeContext(GetParam());
  Fp4 w = RandomFp4(16, 32, 3);
  for (int i = 0; i < 256; ++i) w.codes[i] = static_cast<uint8_t>(i);
  for (int i = 0; i < 32; ++i) {
    w.scales[i] = bf16{static_cast<uint16_t>(i % 2 == 0 ? 3 + 5 * i : 0x7d00 + 3 * i)};
  }
  const Nvfp4Weights packed = Packed(*ctx, w.view);
  EXPECT_FALSE(packed.plain_scales());
  TestMatrix<bf16> identity(32, 32);
  for (int64_t i = 0; i < 32; ++i) {
    for (int64_t j = 0; j < 32; ++j) identity.view().row(i)[j] = ToBf16(i == j ? 1.0f : 0.0f);
  }
  TestMatrix<float> y(32, 16);
  ASSERT_TRUE(Nvfp4Gemm(*ctx, identity.view(), packed, y.view()).ok());
  const std::vector<float> dense = reference::Nvfp4Dequantise(w.codes.data(), w.scales.data(), 16, 32);
  for (int64_t r = 0; r < 16; ++r) {
    for (int64_t c = 0; c < 32; ++c) EXPECT_EQ(y.view().row(c)[r], dense[r * 32 + c]) << r << ", " << c;
  }
}

TEST_P(Nvfp4Test, RowsDoNotDependOnTheirNeighboursOrOnThreads) {
  const Fp4 w = RandomFp4(200, 1200, 11);
  const TestMatrix<bf16> x = RandomMatrix(37, 1200, 0, 12);
  TestMatrix<float> expected(37, 200);
  for (const int threads : {1, 2, 3}) {
    const auto ctx = MakeContext(GetParam(), threads);
    const Nvfp4Weights packed = Packed(*ctx, w.view);
    TestMatrix<float> y(37, 200);
    ASSERT_TRUE(Nvfp4Gemm(*ctx, x.view(), packed, y.view()).ok());
    if (threads == 1) expected = y;
    EXPECT_TRUE(SameBits(y.data.data(), expected.data.data(), 37 * 200)) << threads << " threads";
    for (int64_t t = 0; t < 37; ++t) {
      TestMatrix<float> alone(1, 200);
      ASSERT_TRUE(Nvfp4Gemm(*ctx, x.view().Rows(t, 1), packed, alone.view()).ok());
      ASSERT_TRUE(SameBits(alone.data.data(), expected.view().row(t), 200)) << "row " << t;
    }
  }
}

TEST_P(Nvfp4Test, RowsBeyondAScratchChunkAreTheSame) {
  const auto ctx = MakeContext(GetParam());
  const Fp4 w = RandomFp4(16, 16, 21);
  const Nvfp4Weights packed = Packed(*ctx, w.view);
  const TestMatrix<bf16> x = RandomMatrix(2309, 16, 0, 22);
  TestMatrix<float> y(2309, 16);
  ASSERT_TRUE(Nvfp4Gemm(*ctx, x.view(), packed, y.view()).ok());
  for (const int64_t t : {0, 2045, 2046, 2047, 2048, 2308}) {
    TestMatrix<float> alone(1, 16);
    ASSERT_TRUE(Nvfp4Gemm(*ctx, x.view().Rows(t, 1), packed, alone.view()).ok());
    EXPECT_TRUE(SameBits(alone.data.data(), y.view().row(t), 16)) << "row " << t;
  }
}

TEST_P(Nvfp4Test, StacksPartsAndReadsSlices) {
  const auto ctx = MakeContext(GetParam(), 2);
  const Fp4 a = RandomFp4(20, 64, 1);
  const Fp4 b = RandomFp4(7, 64, 2);
  // Columns 32..63 of both: a slice of a row-parallel weight.
  const Nvfp4MatrixView parts[] = {
      {20, 32, a.codes.data() + 16, 32, a.scales.data() + 2, 4},
      {0, 32, nullptr, 0, nullptr, 0},
      {7, 32, b.codes.data() + 16, 32, b.scales.data() + 2, 4},
  };
  auto packed = Nvfp4Weights::Pack(*ctx, parts);
  ASSERT_TRUE(packed.ok()) << packed.status();
  EXPECT_EQ(packed->rows(), 27);
  EXPECT_EQ(packed->resident_bytes(), 32 * (16 + 2 * 2));  // 27 rows padded to 32
  const TestMatrix<bf16> x = RandomMatrix(4, 64, 0, 9);
  TestMatrix<float> y(4, 27);
  ASSERT_TRUE(Nvfp4Gemm(*ctx, x.view().Cols(32, 32), *packed, y.view()).ok());
  int64_t row = 0;
  for (const Fp4* part : {&a, &b}) {
    std::vector<float> dense =
        reference::Nvfp4Dequantise(part->codes.data(), part->scales.data(), part->view.rows, part->view.cols);
    for (int64_t r = 0; r < part->view.rows; ++r, ++row) {
      std::fill_n(dense.begin() + r * 64, 32, 0.0f);
      const std::vector<double> exact = reference::Linear(x.view(), {dense.data() + r * 64, 64}, 1, {});
      for (int64_t t = 0; t < 4; ++t) EXPECT_NEAR(y.view().row(t)[row], exact[t], 1e-5);
    }
  }
}

TEST_P(Nvfp4Test, EmptyExtents) {
  const auto ctx = MakeContext(GetParam());
  const Nvfp4MatrixView no_cols[] = {{3, 0, nullptr, 0, nullptr, 0}};
  const Nvfp4Weights packed = *Nvfp4Weights::Pack(*ctx, no_cols);
  const std::vector<bf16> bias = RandomVector(3, 1);
  TestMatrix<bf16> y(2, 3);
  ASSERT_TRUE(Nvfp4Gemm(*ctx, {nullptr, 2, 0}, packed, bias, y.view()).ok());
  for (int64_t t = 0; t < 2; ++t) EXPECT_TRUE(SameBits<bf16>(y.view().row(t), bias.data(), 3));
  const Nvfp4Weights nothing = *Nvfp4Weights::Pack(*ctx, {});
  EXPECT_TRUE(Nvfp4Gemm(*ctx, {nullptr, 2, 0}, nothing, MatrixView<float>(nullptr, 2, 0)).ok());
}

TEST_P(Nvfp4Test, NamesShapesThatDisagree) {
  const auto ctx = MakeContext(GetParam());
  const Fp4 w = RandomFp4(4, 32, 1);
  const Nvfp4Weights packed = Packed(*ctx, w.view);
  TestMatrix<bf16> x(2, 16);
  TestMatrix<bf16> y(2, 4);
  const absl::Status status = Nvfp4Gemm(*ctx, x.view(), packed, {}, y.view());
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("x is [2, 16]"));
  TestMatrix<bf16> right(2, 32);
  TestMatrix<bf16> bad_y(2, 5);
  EXPECT_FALSE(Nvfp4Gemm(*ctx, right.view(), packed, {}, bad_y.view()).ok());
  const std::vector<bf16> bias(3);
  EXPECT_FALSE(Nvfp4Gemm(*ctx, right.view(), packed, bias, y.view()).ok());
  Nvfp4MatrixView odd = w.view;
  odd.cols = 24;
  EXPECT_FALSE(Nvfp4Weights::Pack(*ctx, {odd}).ok());
}

INSTANTIATE_TEST_SUITE_P(Isa, Nvfp4Test, testing::ValuesIn(AvailableIsas()), IsaTestName);

}  // namespace
}  // namespace lancet
