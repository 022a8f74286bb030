#include "gtest/gtest.h"
#include "kernels/activation.h"
#include "kernels/cpu/row_dispatch.h"
#include "kernels/reference/trunk_ref.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "tests/kernels/kernel_testing.h"

namespace lancet {
namespace {

// Counts elements that differ from the rounded reference. An intermediate bf16 rounding may fall the other
// way where the f32 value lies at a tie: then an element is one step off, which must be rare.
class Comparison {
 public:
  // `steps`: how many roundings precede the last one; `magnitude`: of the largest term rounded.
  void Add(bf16 got, double exact, int steps, double magnitude) {
    ++count_;
    if (got == ToBf16(static_cast<float>(exact))) return;
    ++differing_;
    EXPECT_NEAR(ToFloat(got), exact, HalfUlp(exact) + 2 * steps * HalfUlp(magnitude));
  }
  void ExpectRarelyDiffers() const { EXPECT_LE(differing_, count_ / 100 + 1) << "of " << count_; }

 private:
  int64_t count_ = 0;
  int64_t differing_ = 0;
};

class RowOpsTest : public testing::TestWithParam<CpuIsa> {};

TEST_P(RowOpsTest, RmsNorm) {
  const auto ctx = MakeContext(GetParam(), 2);
  Comparison comparison;
  for (const int64_t dim : {1, 16, 176, 2048}) {
    for (const int64_t tokens : {0, 1, 5, 130}) {
      TestMatrix<bf16> x = RandomMatrix(tokens, dim, 3, dim + tokens, 3.0f);
      // Tiny values: here epsilon decides.
      for (int64_t c = 0; tokens > 2 && c < dim; ++c) {
        x.view().row(2)[c] = ToBf16(ToFloat(x.view().row(2)[c]) * 1e-4f);
      }
      const std::vector<bf16> weight = RandomVector(dim, 7, 0.5f, 1.5f);
      const std::vector<double> exact = reference::RmsNorm(x.view(), weight, 1e-6);
      TestMatrix<bf16> y(tokens, dim, 1);
      ASSERT_TRUE(RmsNorm(*ctx, x.view(), weight, 1e-6f, y.view()).ok());
      EXPECT_TRUE(y.PaddingUntouched());
      for (int64_t t = 0; t < tokens; ++t) {
        for (int64_t c = 0; c < dim; ++c) {
          comparison.Add(y.view().row(t)[c], exact[t * dim + c], 1, exact[t * dim + c]);
        }
      }
      ASSERT_TRUE(RmsNorm(*ctx, x.view(), weight, 1e-6f, x.view()).ok());  // in place
      for (int64_t t = 0; t < tokens; ++t) {
        EXPECT_TRUE(SameBits<bf16>(x.view().row(t), y.view().row(t), dim));
      }
    }
  }
  comparison.ExpectRarelyDiffers();
}

TEST_P(RowOpsTest, QkNormRope) {
  const auto ctx = MakeContext(GetParam(), 2);
  Comparison comparison;
  for (const int64_t head_dim : {2, 20, 80, 128}) {
    constexpr int64_t kTokens = 33;
    constexpr int64_t kHeads = 3;
    TestMatrix<bf16> x = RandomMatrix(kTokens, kHeads * head_dim, 5, head_dim, 2.0f);
    const TestMatrix<bf16> before = x;
    const TestMatrix<bf16> cos = RandomMatrix(kTokens, head_dim / 2, 2, 1);
    const TestMatrix<bf16> sin = RandomMatrix(kTokens, head_dim / 2, 0, 2);
    const std::vector<bf16> weight = RandomVector(head_dim, 3, 0.5f, 1.5f);
    std::vector<uint8_t> wide(kTokens);
    for (int64_t t = 0; t < kTokens; ++t) wide[t] = t % 3 == 0;
    ASSERT_TRUE(QkNormRope(*ctx, x.view(), kHeads, weight, 1e-6f, cos.view(), sin.view(), wide).ok());
    EXPECT_TRUE(x.PaddingUntouched());
    const size_t dim = static_cast<size_t>(head_dim);
    for (int64_t t = 0; t < kTokens; ++t) {
      for (int64_t h = 0; h < kHeads; ++h) {
        const std::vector<double> exact =
            reference::NormRopeHead({before.view().row(t) + h * head_dim, dim}, weight, 1e-6,
                                    {cos.view().row(t), dim / 2}, {sin.view().row(t), dim / 2}, wide[t] != 0);
        for (size_t d = 0; d < dim; ++d) {
          // Normalised values are below 1.5 sqrt(3); four roundings before the last, none in wide rows.
          comparison.Add(x.view().row(t)[h * head_dim + d], exact[d], wide[t] != 0 ? 0 : 4, 2.6);
        }
      }
    }
  }
  comparison.ExpectRarelyDiffers();
}

TEST_P(RowOpsTest, WideRowsDifferFromNarrowOnes) {
  const auto ctx = MakeContext(GetParam());
  TestMatrix<bf16> narrow = RandomMatrix(1, 128, 0, 1);
  TestMatrix<bf16> wide = narrow;
  const TestMatrix<bf16> angles = RandomMatrix(2, 64, 0, 2);
  const std::vector<bf16> weight = RandomVector(128, 3);
  const uint8_t no[] = {0};
  const uint8_t yes[] = {1};
  const auto cos = angles.view().Rows(0, 1);
  const auto sin = angles.view().Rows(1, 1);
  ASSERT_TRUE(QkNormRope(*ctx, narrow.view(), 1, weight, 1e-6f, cos, sin, no).ok());
  ASSERT_TRUE(QkNormRope(*ctx, wide.view(), 1, weight, 1e-6f, cos, sin, yes).ok());
  EXPECT_FALSE(SameBits(narrow.data.data(), wide.data.data(), 128));
}

TEST_P(RowOpsTest, SiluMulAndSilu) {
  const auto ctx = MakeContext(GetParam(), 3);
  Comparison comparison;
  for (const int64_t n : {1, 16, 88, 1024}) {
    const TestMatrix<bf16> gate_up = RandomMatrix(9, 2 * n, 1, n, 8.0f);
    TestMatrix<bf16> y(9, n, 2);
    ASSERT_TRUE(SiluMul(*ctx, gate_up.view(), y.view()).ok());
    EXPECT_TRUE(y.PaddingUntouched());
    TestMatrix<bf16> silu(9, n);
    for (int64_t t = 0; t < 9; ++t) std::copy_n(gate_up.view().row(t), n, silu.view().row(t));
    ASSERT_TRUE(Silu(*ctx, silu.view()).ok());
    for (int64_t t = 0; t < 9; ++t) {
      for (int64_t c = 0; c < n; ++c) {
        const double s = reference::Silu(ToFloat(gate_up.view().row(t)[c]));
        const double product = RoundToBf16(static_cast<float>(s)) * ToFloat(gate_up.view().row(t)[n + c]);
        comparison.Add(silu.view().row(t)[c], s, 0, 0);
        comparison.Add(y.view().row(t)[c], product, 1, product);
      }
    }
  }
  comparison.ExpectRarelyDiffers();
}

TEST_P(RowOpsTest, SiluAtTheEnds) {
  const auto ctx = MakeContext(GetParam());
  const float in[] = {-1e30f, -200.0f, -95.0f, -0.0f, 0.0f, 95.0f, 1e30f};
  TestMatrix<bf16> x(1, 7);
  for (int i = 0; i < 7; ++i) x.data[i] = ToBf16(in[i]);
  ASSERT_TRUE(Silu(*ctx, x.view()).ok());
  const float out[] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 95.0f, 1e30f};
  for (int i = 0; i < 7; ++i) EXPECT_EQ(ToFloat(x.data[i]), RoundToBf16(out[i])) << in[i];
}

TEST_P(RowOpsTest, RopeAlone) {
  const auto ctx = MakeContext(GetParam(), 2);
  Comparison comparison;
  for (const int64_t head_dim : {2, 20, 80, 128}) {
    constexpr int64_t kTokens = 33;
    constexpr int64_t kHeads = 3;
    TestMatrix<bf16> x = RandomMatrix(kTokens, kHeads * head_dim, 5, head_dim, 2.0f);
    const TestMatrix<bf16> before = x;
    const TestMatrix<bf16> cos = RandomMatrix(kTokens, head_dim / 2, 2, 1);
    const TestMatrix<bf16> sin = RandomMatrix(kTokens, head_dim / 2, 0, 2);
    ASSERT_TRUE(Rope(*ctx, x.view(), kHeads, cos.view(), sin.view()).ok());
    EXPECT_TRUE(x.PaddingUntouched());
    const size_t dim = static_cast<size_t>(head_dim);
    for (int64_t t = 0; t < kTokens; ++t) {
      for (int64_t h = 0; h < kHeads; ++h) {
        const std::vector<double> exact =
            reference::RopeHead({before.view().row(t) + h * head_dim, dim}, {cos.view().row(t), dim / 2},
                                {sin.view().row(t), dim / 2});
        // The difference of two f32 products: where it nearly cancels, an f32 rounding of 2 shows.
        for (size_t d = 0; d < dim; ++d) {
          const bf16 got = x.view().row(t)[h * head_dim + d];
          ASSERT_NEAR(ToFloat(got), exact[d], HalfUlp(exact[d]) + 0x1p-22);
          comparison.Add(got, exact[d], 1, 1.0);
        }
      }
    }
  }
  comparison.ExpectRarelyDiffers();
}

// Relative accuracy down to where the result leaves bf16's precision, on every bf16 from -12 to 12.
TEST_P(RowOpsTest, GeluOnEveryNumber) {
  const auto ctx = MakeContext(GetParam(), 2);
  Comparison comparison;
  std::vector<bf16> numbers;
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const bf16 x{static_cast<uint16_t>(bits)};
    if (std::abs(ToFloat(x)) <= 12.0f) numbers.push_back(x);
  }
  const int64_t count = static_cast<int64_t>(numbers.size());
  TestMatrix<bf16> x(1, count, 3);
  std::copy(numbers.begin(), numbers.end(), x.data.begin());
  ASSERT_TRUE(Gelu(*ctx, x.view()).ok());
  EXPECT_TRUE(x.PaddingUntouched());
  for (int64_t i = 0; i < count; ++i) {
    const double exact = reference::Gelu(ToFloat(numbers[i]));
    // Half a step of subnormal bf16 numbers is 2^-134, which HalfUlp does not know.
    if (std::abs(exact) < 0x1p-120) {
      ASSERT_NEAR(ToFloat(x.data[i]), exact, 0x1p-127) << ToFloat(numbers[i]);
    } else {
      comparison.Add(x.data[i], exact, 0, 0);
      ASSERT_NEAR(ToFloat(x.data[i]), exact, HalfUlp(exact) * 1.01) << ToFloat(numbers[i]);
    }
  }
  comparison.ExpectRarelyDiffers();
  TestMatrix<bf16> ends(1, 3);
  ends.data = {ToBf16(-1e30f), ToBf16(1e30f), bf16{0x7fc0}};
  ASSERT_TRUE(Gelu(*ctx, ends.view()).ok());
  EXPECT_EQ(ToFloat(ends.data[0]), 0.0f);
  EXPECT_EQ(ends.data[1], ToBf16(1e30f));
  EXPECT_TRUE(std::isnan(ToFloat(ends.data[2])));
}

TEST_P(RowOpsTest, BiasIsAddedBeforeTheRounding) {
  const auto ctx = MakeContext(GetParam(), 2);
  for (const int64_t n : {1, 16, 177}) {
    TestMatrix<bf16> x = RandomMatrix(5, n, 3, n);
    const TestMatrix<bf16> before = x;
    const std::vector<bf16> bias = RandomVector(n, 4);
    TestMatrix<float> sums(5, n, 2);
    TestRandom random(8);
    for (int64_t t = 0; t < 5; ++t) {
      for (int64_t c = 0; c < n; ++c) sums.view().row(t)[c] = random.Uniform(-2.0f, 2.0f);
    }
    TestMatrix<bf16> y(5, n, 1);
    ASSERT_TRUE(AddBias(*ctx, sums.view(), bias, y.view()).ok());
    ASSERT_TRUE(AddResidual(*ctx, sums.view(), bias, x.view()).ok());
    EXPECT_TRUE(x.PaddingUntouched());
    EXPECT_TRUE(y.PaddingUntouched());
    for (int64_t t = 0; t < 5; ++t) {
      for (int64_t c = 0; c < n; ++c) {
        const float biased = RoundToBf16(sums.view().row(t)[c] + ToFloat(bias[c]));
        EXPECT_EQ(ToFloat(y.view().row(t)[c]), biased);
        EXPECT_EQ(x.view().row(t)[c], ToBf16(ToFloat(before.view().row(t)[c]) + biased));
      }
    }
    const std::vector<bf16> short_bias(static_cast<size_t>(n) + 1);
    EXPECT_EQ(AddBias(*ctx, sums.view(), short_bias, y.view()).code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(AddResidual(*ctx, sums.view(), short_bias, x.view()).code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST_P(RowOpsTest, AddResidualRoundsTwice) {
  const auto ctx = MakeContext(GetParam(), 2);
  for (const int64_t n : {1, 16, 177}) {
    TestMatrix<bf16> x = RandomMatrix(5, n, 3, n);
    const TestMatrix<bf16> before = x;
    TestMatrix<float> delta(5, n, 2);
    TestRandom random(8);
    for (int64_t t = 0; t < 5; ++t) {
      for (int64_t c = 0; c < n; ++c) delta.view().row(t)[c] = random.Uniform(-2.0f, 2.0f);
    }
    ASSERT_TRUE(AddResidual(*ctx, delta.view(), x.view()).ok());
    EXPECT_TRUE(x.PaddingUntouched());
    for (int64_t t = 0; t < 5; ++t) {
      for (int64_t c = 0; c < n; ++c) {
        const float sum = ToFloat(before.view().row(t)[c]) + RoundToBf16(delta.view().row(t)[c]);
        EXPECT_EQ(x.view().row(t)[c].bits, ToBf16(sum).bits);
      }
    }
  }
}

TEST_P(RowOpsTest, RoundingTiesAndNan) {
  const auto ctx = MakeContext(GetParam());
  TestMatrix<bf16> x(1, 5);
  std::fill(x.data.begin(), x.data.end(), bf16{});
  TestMatrix<float> delta(1, 5);
  delta.data = {std::bit_cast<float>(0x3f808000u), std::bit_cast<float>(0x3f818000u),
                std::bit_cast<float>(0x3f808001u), std::bit_cast<float>(0x7fffffffu),
                std::bit_cast<float>(0x7f7fffffu)};
  ASSERT_TRUE(AddResidual(*ctx, delta.view(), x.view()).ok());
  EXPECT_EQ(x.data[0].bits, 0x3f80);  // a tie goes to the even neighbour, below
  EXPECT_EQ(x.data[1].bits, 0x3f82);  // or above
  EXPECT_EQ(x.data[2].bits, 0x3f81);
  EXPECT_TRUE(std::isnan(ToFloat(x.data[3])));
  EXPECT_EQ(x.data[4].bits, 0x7f80);  // the largest f32 rounds to infinity
}

TEST_P(RowOpsTest, ExpIsWithinTwoUlp) {
  const RowKernels kernels = RowKernelsFor(GetParam());
  std::vector<float> x;
  for (float v = -87.3f; v < 88.7f; v += 0.00317f) x.push_back(v);
  std::vector<float> y = x;
  kernels.exp(y.data(), static_cast<int64_t>(y.size()));
  for (size_t i = 0; i < x.size(); ++i) {
    const double exact = std::exp(static_cast<double>(x[i]));
    const float nearest = static_cast<float>(exact);
    const double ulp = std::nextafter(nearest, INFINITY) - nearest;
    ASSERT_LE(std::abs(y[i] - exact), 2 * ulp) << x[i];
  }
  std::vector<float> ends = {-INFINITY, -1e30f, -105.0f, 0.0f, 90.0f, INFINITY, NAN};
  kernels.exp(ends.data(), static_cast<int64_t>(ends.size()));
  EXPECT_EQ(ends[0], 0.0f);
  EXPECT_EQ(ends[1], 0.0f);
  EXPECT_EQ(ends[2], 0.0f);
  EXPECT_EQ(ends[3], 1.0f);
  EXPECT_EQ(ends[4], INFINITY);
  EXPECT_EQ(ends[5], INFINITY);
  EXPECT_TRUE(std::isnan(ends[6]));
}

TEST_P(RowOpsTest, ShapesThatDisagree) {
  const auto ctx = MakeContext(GetParam());
  TestMatrix<bf16> a(2, 16);
  TestMatrix<bf16> b(2, 17);
  TestMatrix<bf16> half(2, 8);
  TestMatrix<float> f(3, 16);
  const std::vector<bf16> weight(16);
  const std::vector<uint8_t> wide(2);
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  EXPECT_EQ(RmsNorm(*ctx, a.view(), weight, 1e-6f, b.view()).code(), kInvalid);
  EXPECT_EQ(RmsNorm(*ctx, b.view(), weight, 1e-6f, b.view()).code(), kInvalid);
  EXPECT_EQ(SiluMul(*ctx, b.view(), half.view()).code(), kInvalid);
  EXPECT_EQ(AddResidual(*ctx, f.view(), a.view()).code(), kInvalid);
  EXPECT_EQ(QkNormRope(*ctx, a.view(), 2, weight, 1e-6f, half.view(), half.view(), wide).code(), kInvalid);
  EXPECT_EQ(QkNormRope(*ctx, a.view(), 1, weight, 1e-6f, half.view(), a.view(), wide).code(), kInvalid);
  EXPECT_EQ(QkNormRope(*ctx, a.view(), 1, weight, 1e-6f, half.view(), half.view(), {}).code(), kInvalid);
}

INSTANTIATE_TEST_SUITE_P(Isa, RowOpsTest, testing::ValuesIn(AvailableIsas()), IsaTestName);

}  // namespace
}  // namespace lancet
