#include "kernels/int8_gemm.h"

#include <limits>

#include "gmock/gmock.h"
#include "kernels/number_formats.h"
#include "kernels/quantise.h"
#include "tests/kernels/kernel_testing.h"

namespace lancet {
namespace {

struct Weights {
  int64_t rows, cols;
  std::vector<uint8_t> codes;
  std::vector<bf16> scales;
  Nvfp4MatrixView view() const { return {rows, cols, codes.data(), cols / 2, scales.data(), cols / 16}; }
};

// Random codes; a tenth of the scales are zero.
Weights RandomWeights(int64_t rows, int64_t cols, uint64_t seed) {
  Weights w{rows, cols, {}, {}};
  TestRandom random(seed);
  for (int64_t i = 0; i < rows * cols / 2; ++i) w.codes.push_back(static_cast<uint8_t>(random.Bits() & 255));
  for (int64_t i = 0; i < rows * cols / 16; ++i) {
    w.scales.push_back(random.Bits() % 10 == 0 ? bf16{} : ToBf16(random.Uniform(0.001f, 0.05f)));
  }
  return w;
}

// The header's definition, word for word. [tokens, rows]
std::vector<float> Reference(ConstMatrixView<bf16> x, const Weights& w,
                             BlockScales form = BlockScales::kBf16) {
  std::vector<float> y;
  float scale_factor = 1.0f;
  std::vector<float> scales;
  for (const bf16 scale : w.scales) scales.push_back(ToFloat(scale));
  if (form == BlockScales::kE4m3) {
    const TwoLevelScales encoded = EncodeScales(w.scales);
    scale_factor = encoded.factor;
    for (size_t i = 0; i < scales.size(); ++i) scales[i] = FromE4m3(encoded.bytes[i]);
  }
  std::vector<int8_t> values(static_cast<size_t>(w.cols));
  for (int64_t t = 0; t < x.rows; ++t) {
    const float factor = QuantiseInt8Row({x.row(t), static_cast<size_t>(w.cols)}, absl::MakeSpan(values)) *
                         0.5f * scale_factor;
    for (int64_t r = 0; r < w.rows; ++r) {
      float sum = 0.0f;
      for (int64_t block = 0; block < w.cols / 16; ++block) {
        int32_t dot = 0;
        for (int64_t c = block * 16; c < block * 16 + 16; ++c) {
          const uint8_t byte = w.codes[(r * w.cols + c) / 2];
          dot += values[c] * static_cast<int32_t>(2.0f * FromE2m1(c % 2 == 0 ? byte & 15 : byte >> 4));
        }
        sum += static_cast<float>(dot) * scales[r * w.cols / 16 + block];
      }
      y.push_back(sum * factor);
    }
  }
  return y;
}

struct Variant {
  CpuIsa isa;
  bool vnni;
};

std::vector<Variant> Variants() {
  std::vector<Variant> variants;
  for (const CpuIsa isa : AvailableIsas()) {
    variants.push_back({isa, false});
    if (DetectVnni(isa)) variants.push_back({isa, true});
  }
  return variants;
}

class Int8GemmTest : public testing::TestWithParam<Variant> {
 protected:
  static std::unique_ptr<KernelContext> Context(int threads = 1) {
    CpuOptions options;
    options.threads = threads;
    options.max_isa = GetParam().isa;
    options.use_vnni = GetParam().vnni;
    auto ctx = KernelContext::CreateCpu(options);
    EXPECT_TRUE(ctx.ok()) << ctx.status();
    EXPECT_EQ((*ctx)->has_vnni(), GetParam().vnni);
    return *std::move(ctx);
  }
  static Nvfp4Weights Pack(const KernelContext& ctx, const Weights& w) {
    auto packed = Nvfp4Weights::Pack(ctx, {w.view()});
    EXPECT_TRUE(packed.ok()) << packed.status();
    return *std::move(packed);
  }
};

TEST_P(Int8GemmTest, EqualsTheReferenceToTheBit) {
  const auto ctx = Context();
  for (const int64_t rows : {1, 5, 130}) {
    for (const int64_t cols : {16, 176, 2080}) {
      const Weights w = RandomWeights(rows, cols, rows * 7 + cols);
      const Nvfp4Weights packed = Pack(*ctx, w);
      const std::vector<bf16> bias = RandomVector(rows, 5);
      for (const int64_t tokens : {0, 1, 2, 3, 4, 7, 12, 13, 29}) {
        SCOPED_TRACE(testing::Message() << rows << " rows, " << cols << " cols, " << tokens << " tokens");
        const TestMatrix<bf16> x = RandomMatrix(tokens, cols, 8, tokens + 1, 3.0f);
        TestMatrix<bf16> y(tokens, rows, 3);
        TestMatrix<float> sums(tokens, rows, 5);
        ASSERT_TRUE(Int8Gemm(*ctx, x.view(), packed, bias, y.view()).ok());
        ASSERT_TRUE(Int8Gemm(*ctx, x.view(), packed, sums.view()).ok());
        EXPECT_TRUE(y.PaddingUntouched());
        EXPECT_TRUE(sums.PaddingUntouched());
        const std::vector<float> expected = Reference(x.view(), w);
        for (int64_t t = 0; t < tokens; ++t) {
          ASSERT_TRUE(SameBits<float>(sums.view().row(t), expected.data() + t * rows, rows)) << "token " << t;
          for (int64_t r = 0; r < rows; ++r) {
            ASSERT_EQ(y.view().row(t)[r].bits, ToBf16(expected[t * rows + r] + ToFloat(bias[r])).bits);
          }
        }
      }
    }
  }
}

TEST_P(Int8GemmTest, E4m3ScalesEqualTheReferenceToTheBit) {
  const auto ctx = Context();
  Weights w = RandomWeights(37, 208, 3);
  // From the largest number to the least subnormal one and below, of both signs.
  for (int i = 0; i < 40; ++i) w.scales[i] = ToBf16(std::ldexp(i % 2 != 0 ? -1.3f : 1.7f, -i / 2));
  const auto packed = Nvfp4Weights::Pack(*ctx, {w.view()}, BlockScales::kE4m3);
  ASSERT_TRUE(packed.ok()) << packed.status();
  EXPECT_EQ(packed->resident_bytes(), 48 * (208 / 2 + 208 / 16));
  for (const int64_t tokens : {1, 5, 21}) {
    const TestMatrix<bf16> x = RandomMatrix(tokens, 208, 0, tokens);
    TestMatrix<float> y(tokens, 37);
    ASSERT_TRUE(Int8Gemm(*ctx, x.view(), *packed, y.view()).ok());
    const std::vector<float> expected = Reference(x.view(), w, BlockScales::kE4m3);
    EXPECT_TRUE(SameBits(y.data.data(), expected.data(), tokens * 37)) << tokens << " tokens";
  }
  TestMatrix<float> y(1, 37);
  EXPECT_EQ(Nvfp4Gemm(*ctx, RandomMatrix(1, 208, 0, 1).view(), *packed, y.view()).code(),
            absl::StatusCode::kInvalidArgument);
  w.scales[7] = ToBf16(std::numeric_limits<float>::infinity());
  EXPECT_EQ(Nvfp4Weights::Pack(*ctx, {w.view()}, BlockScales::kE4m3).status().code(),
            absl::StatusCode::kInvalidArgument);
}

// Sums in 16 bits are as large as they get: every product has its largest magnitude and one sign.
TEST_P(Int8GemmTest, LargestSumsDoNotOverflow) {
  const auto ctx = Context();
  constexpr int64_t kCols = 48;
  for (const bool negative : {false, true}) {
    for (const bool alternate : {false, true}) {
      Weights w{16, kCols, {}, std::vector<bf16>(16 * kCols / 16, ToBf16(1.0f))};
      const uint8_t code = negative ? 15 : 7;
      w.codes.assign(16 * kCols / 2, static_cast<uint8_t>(code | (alternate ? code ^ 8 : code) << 4));
      const Nvfp4Weights packed = Pack(*ctx, w);
      TestMatrix<bf16> x(2, kCols);
      for (int64_t c = 0; c < kCols; ++c) {
        x.view().row(0)[c] = ToBf16(2.0f);
        x.view().row(1)[c] = ToBf16(alternate && c % 2 != 0 ? -2.0f : 2.0f);
      }
      TestMatrix<float> y(2, 16);
      ASSERT_TRUE(Int8Gemm(*ctx, x.view(), packed, y.view()).ok());
      const std::vector<float> expected = Reference(x.view(), w);
      EXPECT_TRUE(SameBits(y.data.data(), expected.data(), 2 * 16));
      EXPECT_NEAR(y.view().row(1)[3], (negative ? -1.0f : 1.0f) * kCols * 12.0f, 1e-3f);
    }
  }
}

TEST_P(Int8GemmTest, RowsDoNotDependOnTheirNeighboursOrOnThreads) {
  const Weights w = RandomWeights(200, 1200, 11);
  const TestMatrix<bf16> x = RandomMatrix(1100, 1200, 0, 12);  // more than a chunk of sums
  TestMatrix<float> expected(1100, 200);
  for (const int threads : {1, 3}) {
    const auto ctx = Context(threads);
    const Nvfp4Weights packed = Pack(*ctx, w);
    TestMatrix<float> y(1100, 200);
    ASSERT_TRUE(Int8Gemm(*ctx, x.view(), packed, y.view()).ok());
    if (threads == 1) expected = y;
    EXPECT_TRUE(SameBits(y.data.data(), expected.data.data(), 1100 * 200)) << threads << " threads";
    for (const int64_t count : {1, 2, 6, 8, 13}) {
      for (const int64_t row : {0, 3, 1019, 1023, 1087}) {
        TestMatrix<float> some(count, 200);
        ASSERT_TRUE(Int8Gemm(*ctx, x.view().Rows(row, count), packed, some.view()).ok());
        ASSERT_TRUE(SameBits(some.data.data(), expected.view().row(row), count * 200))
            << row << ", " << count;
      }
    }
  }
}

TEST_P(Int8GemmTest, RowsOfZerosAndOnesThatAreNotFinite) {
  const auto ctx = Context();
  const Weights w = RandomWeights(20, 64, 13);
  const Nvfp4Weights packed = Pack(*ctx, w);
  TestMatrix<bf16> x = RandomMatrix(5, 64, 0, 14);
  std::fill_n(x.view().row(1), 64, bf16{});
  std::fill_n(x.view().row(2), 64, ToBf16(0x1p-120f));
  x.view().row(3)[17] = ToBf16(std::numeric_limits<float>::infinity());
  x.view().row(4)[63] = bf16{kPaddingBits};
  TestMatrix<float> y(5, 20);
  ASSERT_TRUE(Int8Gemm(*ctx, x.view(), packed, y.view()).ok());
  const std::vector<float> expected = Reference(x.view().Rows(0, 1), w);
  EXPECT_TRUE(SameBits<float>(y.view().row(0), expected.data(), 20));
  for (int64_t r = 0; r < 20; ++r) {
    EXPECT_EQ(y.view().row(1)[r], 0.0f);
    EXPECT_EQ(y.view().row(2)[r], 0.0f);
    EXPECT_TRUE(std::isnan(y.view().row(3)[r]));
    EXPECT_TRUE(std::isnan(y.view().row(4)[r]));
  }
}

TEST_P(Int8GemmTest, EmptyExtentsAndShapesThatDisagree) {
  const auto ctx = Context();
  const Nvfp4MatrixView no_cols[] = {{3, 0, nullptr, 0, nullptr, 0}};
  const std::vector<bf16> bias = RandomVector(3, 1);
  TestMatrix<bf16> y(2, 3);
  ASSERT_TRUE(Int8Gemm(*ctx, {nullptr, 2, 0}, *Nvfp4Weights::Pack(*ctx, no_cols), bias, y.view()).ok());
  for (int64_t t = 0; t < 2; ++t) EXPECT_TRUE(SameBits<bf16>(y.view().row(t), bias.data(), 3));
  const Nvfp4Weights packed = Pack(*ctx, RandomWeights(3, 32, 1));
  const TestMatrix<bf16> narrow = RandomMatrix(2, 16, 0, 2);
  const absl::Status status = Int8Gemm(*ctx, narrow.view(), packed, bias, y.view());
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("Int8Gemm: x is [2, 16]"));
}

INSTANTIATE_TEST_SUITE_P(Isa, Int8GemmTest, testing::ValuesIn(Variants()), [](const auto& variant) {
  return std::string(CpuIsaName(variant.param.isa)) + (variant.param.vnni ? "_vnni" : "");
});

}  // namespace
}  // namespace lancet
