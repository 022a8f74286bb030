// Emulated products against sums in f64 over operands that are decoded one by one.
#include "kernels/emulated_gemm.h"

#include <cmath>
#include <limits>

#include "common/safetensors.h"
#include "kernels/number_formats.h"
#include "kernels/quantise.h"
#include "tests/kernels/kernel_testing.h"
#include "tests/testing/status_matchers.h"

namespace lancet {
namespace {

using testing::HasSubstr;

struct Weights {
  int64_t rows = 0;
  int64_t cols = 0;
  std::vector<uint8_t> codes;
  std::vector<bf16> scales;

  Nvfp4MatrixView view() const { return {rows, cols, codes.data(), cols / 2, scales.data(), cols / 16}; }
};

Weights RandomWeights(int64_t rows, int64_t cols, uint64_t seed, float largest_scale = 0.02f) {
  Weights w{rows, cols, std::vector<uint8_t>(rows * cols / 2),
            RandomVector(rows * cols / 16, seed, 0.001f, largest_scale)};
  TestRandom random(seed + 1);
  for (uint8_t& byte : w.codes) byte = static_cast<uint8_t>(random.Bits());
  return w;
}

double CodeAt(const Nvfp4MatrixView& w, int64_t r, int64_t c) {
  const uint8_t byte = w.codes[r * w.codes_stride + c / 2];
  return FromE2m1(c % 2 == 0 ? byte & 15 : byte >> 4);
}

// [tokens, cols]: code * scale * factor of every activation.
std::vector<double> DecodedNvfp4(const TestMatrix<bf16>& x, float factor) {
  std::vector<double> decoded;
  std::vector<uint8_t> codes(x.cols / 2);
  std::vector<uint8_t> scales(x.cols / 16);
  for (int64_t t = 0; t < x.rows; ++t) {
    QuantiseNvfp4Row({x.view().row(t), static_cast<size_t>(x.cols)}, factor, absl::MakeSpan(codes),
                     absl::MakeSpan(scales));
    for (int64_t c = 0; c < x.cols; ++c) {
      const double code = FromE2m1(c % 2 == 0 ? codes[c / 2] & 15 : codes[c / 2] >> 4);
      decoded.push_back(code * FromE4m3(scales[c / 16]) * factor);
    }
  }
  return decoded;
}

std::vector<double> DecodedFp8(const TestMatrix<bf16>& x) {
  std::vector<double> decoded;
  std::vector<uint8_t> bytes(x.cols);
  for (int64_t t = 0; t < x.rows; ++t) {
    const double factor =
        QuantiseFp8Row({x.view().row(t), static_cast<size_t>(x.cols)}, absl::MakeSpan(bytes));
    for (const uint8_t byte : bytes) decoded.push_back(FromE4m3(byte) * factor);
  }
  return decoded;
}

// Sums of f32 products differ from the exact ones by roundings of their partial sums, and of the factors.
template <typename T>
void ExpectProduct(const TestMatrix<T>& y, const std::vector<double>& x, const std::vector<double>& w,
                   int64_t cols, absl::Span<const bf16> bias) {
  for (int64_t t = 0; t < y.rows; ++t) {
    for (int64_t r = 0; r < y.cols; ++r) {
      double sum = bias.empty() ? 0.0 : ToFloat(bias[r]);
      double magnitude = std::fabs(sum);
      for (int64_t c = 0; c < cols; ++c) {
        const double term = x[t * cols + c] * w[r * cols + c];
        sum += term;
        magnitude += std::fabs(term);
      }
      double tolerance = magnitude * static_cast<double>(cols + 4) * 0x1p-24 + 1e-37;
      double got;
      if constexpr (std::is_same_v<T, bf16>) {
        tolerance += HalfUlp(sum);
        got = ToFloat(y.view().row(t)[r]);
      } else {
        got = y.view().row(t)[r];
      }
      ASSERT_NEAR(got, sum, tolerance) << "token " << t << ", row " << r;
    }
  }
}

TEST(EmulatedGemmFormatTest, SmallFormatsAndTheirBlocksAreExactInBf16) {
  for (int byte = 0; byte < 256; ++byte) {
    const float scale = FromE4m3(static_cast<uint8_t>(byte));
    if (std::isnan(scale)) continue;
    EXPECT_EQ(RoundToBf16(scale), scale);
    for (int code = 0; code < 16; ++code) {
      const float value = FromE2m1(static_cast<uint8_t>(code)) * scale;
      EXPECT_EQ(RoundToBf16(value), value) << "code " << code << ", scale " << scale;
    }
  }
}

class EmulatedGemmTest : public testing::TestWithParam<CpuIsa> {
 protected:
  const std::unique_ptr<KernelContext> ctx_ = MakeContext(GetParam());
};

TEST_P(EmulatedGemmTest, Nvfp4FollowsTheGoldenScales) {
  auto file = SafetensorsFile::Open(LANCET_TEST_DATA "/golden/nvfp4.safetensors");
  ASSERT_TRUE(file.ok()) << file.status();
  const auto get = [&](const std::string& name) { return *(*file)->Get(name); };
  for (const std::string group : {"gauss", "edge", "gemm", "odd"}) {
    SCOPED_TRACE(group);
    const TensorView codes = get(group + ".qweight");
    const TensorView scales = get(group + ".scales_bf16");
    const TensorView bytes = get(group + ".two_level");
    const TensorView tokens = get(group + ".x");
    const int64_t rows = scales.shape[0];
    const int64_t cols = scales.shape[1] * 16;
    const Nvfp4MatrixView view = {rows, cols, codes.as<uint8_t>(), cols / 2, scales.as<bf16>(), cols / 16};
    const float weight_factor = get(group + ".two_level_global").as<float>()[0];
    const float factor = 0.037f;
    const auto w = EmulatedWeights::EncodeNvfp4(*ctx_, {view}, factor);
    ASSERT_TRUE(w.ok()) << w.status();
    EXPECT_EQ(w->alpha(), weight_factor * factor);

    std::vector<double> decoded;
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) {
        decoded.push_back(CodeAt(view, r, c) * FromE4m3(bytes.as<uint8_t>()[r * cols / 16 + c / 16]) *
                          weight_factor);
        if ((*file)->Contains(group + ".dequantised_two_level")) {
          const double golden = get(group + ".dequantised_two_level").as<float>()[r * cols + c];
          ASSERT_NEAR(decoded.back(), golden, std::fabs(golden) * 1e-6);
        }
      }
    }
    TestMatrix<bf16> x(tokens.shape[0], cols);
    std::copy_n(tokens.as<bf16>(), x.data.size(), x.data.begin());
    TestMatrix<float> y(x.rows, rows);
    ASSERT_TRUE(EmulatedGemm(*ctx_, x.view(), *w, y.view()).ok());
    ExpectProduct(y, DecodedNvfp4(x, factor), decoded, cols, {});
  }
}

TEST_P(EmulatedGemmTest, StackedPartsShareAFactor) {
  const Weights a = RandomWeights(21, 96, 3);
  const Weights b = RandomWeights(30, 96, 5, 0.4f);
  const auto w = EmulatedWeights::EncodeNvfp4(*ctx_, {a.view(), b.view()}, 1.0f);
  ASSERT_TRUE(w.ok()) << w.status();
  EXPECT_EQ(w->rows(), 51);
  std::vector<bf16> all = a.scales;
  all.insert(all.end(), b.scales.begin(), b.scales.end());
  const TwoLevelScales encoded = EncodeScales(all);
  EXPECT_EQ(w->alpha(), encoded.factor);
  std::vector<double> decoded;
  for (const Weights* part : {&a, &b}) {
    for (int64_t r = 0; r < part->rows; ++r) {
      for (int64_t c = 0; c < 96; ++c) {
        const double scale = FromE4m3(encoded.bytes[decoded.size() / 16]);
        decoded.push_back(CodeAt(part->view(), r, c) * scale * encoded.factor);
      }
    }
  }
  const TestMatrix<bf16> x = RandomMatrix(19, 96, 8, 7, 2.0f);
  const std::vector<bf16> bias = RandomVector(51, 9);
  TestMatrix<bf16> y(19, 51, 3);
  ASSERT_TRUE(EmulatedGemm(*ctx_, x.view(), *w, bias, y.view()).ok());
  ExpectProduct(y, DecodedNvfp4(x, 1.0f), decoded, 96, bias);
  EXPECT_TRUE(y.PaddingUntouched());
}

TEST_P(EmulatedGemmTest, Fp8FollowsItsDefinition) {
  const Weights a = RandomWeights(18, 64, 11);
  const Weights b = RandomWeights(7, 64, 13, 3.0f);
  const auto w = EmulatedWeights::EncodeFp8(*ctx_, {a.view(), b.view()});
  ASSERT_TRUE(w.ok()) << w.status();
  EXPECT_EQ(w->rows(), 25);
  EXPECT_EQ(w->cols(), 64);
  std::vector<double> decoded;
  for (const Weights* part : {&a, &b}) {
    const Fp8Weights encoded = EncodeFp8Weights(part->view());
    for (int64_t i = 0; i < part->rows * 64; ++i) {
      decoded.push_back(static_cast<double>(FromE4m3(encoded.bytes[i])) * encoded.factors[i / 64]);
    }
  }
  const TestMatrix<bf16> x = RandomMatrix(23, 64, 0, 15, 5.0f);
  const std::vector<bf16> bias = RandomVector(25, 17);
  TestMatrix<bf16> y(23, 25);
  ASSERT_TRUE(EmulatedGemm(*ctx_, x.view(), *w, bias, y.view()).ok());
  ExpectProduct(y, DecodedFp8(x), decoded, 64, bias);
}

TEST_P(EmulatedGemmTest, ARowDoesNotDependOnTheOthersNorOnThreads) {
  const Weights weights = RandomWeights(40, 128, 19);
  const auto two = MakeContext(GetParam(), /*threads=*/2);
  for (const bool fp8 : {false, true}) {
    const auto w = fp8 ? EmulatedWeights::EncodeFp8(*ctx_, {weights.view()})
                       : EmulatedWeights::EncodeNvfp4(*ctx_, {weights.view()}, 0.01f);
    ASSERT_TRUE(w.ok()) << w.status();
    const TestMatrix<bf16> x = RandomMatrix(300, 128, 0, 21);  // more than are worked on at a time
    TestMatrix<float> together(300, 40);
    ASSERT_TRUE(EmulatedGemm(*two, x.view(), *w, together.view()).ok());
    for (const int64_t row : {0, 17, 255, 256, 299}) {
      TestMatrix<float> alone(1, 40);
      ASSERT_TRUE(EmulatedGemm(*ctx_, x.view().Rows(row, 1), *w, alone.view()).ok());
      EXPECT_TRUE(SameBits(alone.data.data(), together.view().row(row), 40)) << "row " << row;
    }
  }
}

// What a rank's slice is padded with (worker/loader/device_shapes.h) adds nothing: eight ranks have 1376
// inner columns of the release each, padded to 1408.
TEST_P(EmulatedGemmTest, ZeroColumnsAndRowsChangeNothing) {
  constexpr int64_t kCols = 1376;
  constexpr int64_t kPadded = 1408;
  const Weights w = RandomWeights(24, kCols, 23);
  Weights padded{32, kPadded, std::vector<uint8_t>(32 * kPadded / 2), std::vector<bf16>(32 * kPadded / 16)};
  for (int64_t r = 0; r < w.rows; ++r) {
    std::copy_n(w.codes.data() + r * kCols / 2, kCols / 2, padded.codes.data() + r * kPadded / 2);
    std::copy_n(w.scales.data() + r * kCols / 16, kCols / 16, padded.scales.data() + r * kPadded / 16);
  }
  const TestMatrix<bf16> x = RandomMatrix(5, kCols, 0, 25);
  TestMatrix<bf16> wide(5, kPadded);
  std::fill(wide.data.begin(), wide.data.end(), bf16{});
  for (int64_t t = 0; t < 5; ++t) std::copy_n(x.view().row(t), kCols, wide.view().row(t));
  for (const bool fp8 : {false, true}) {
    const auto encode = [&](const Weights& weights) {
      return fp8 ? EmulatedWeights::EncodeFp8(*ctx_, {weights.view()})
                 : EmulatedWeights::EncodeNvfp4(*ctx_, {weights.view()}, 1.0f);
    };
    const auto plain = encode(w);
    const auto zeros = encode(padded);
    ASSERT_TRUE(plain.ok() && zeros.ok());
    EXPECT_EQ(plain->alpha(), zeros->alpha());
    TestMatrix<float> y(5, 24);
    TestMatrix<float> y_padded(5, 32);
    ASSERT_TRUE(EmulatedGemm(*ctx_, x.view(), *plain, y.view()).ok());
    ASSERT_TRUE(EmulatedGemm(*ctx_, wide.view(), *zeros, y_padded.view()).ok());
    for (int64_t t = 0; t < 5; ++t) {
      EXPECT_TRUE(SameBits(y.view().row(t), y_padded.view().row(t), 24)) << "token " << t;
      for (int64_t r = 24; r < 32; ++r) EXPECT_EQ(y_padded.view().row(t)[r], 0.0f);
    }
  }
}

TEST_P(EmulatedGemmTest, RefusesWhatDoesNotFit) {
  const Weights weights = RandomWeights(16, 32, 27);
  for (const float factor : {0.0f, -1.0f, std::numeric_limits<float>::infinity(), std::nanf("")}) {
    EXPECT_THAT(EmulatedWeights::EncodeNvfp4(*ctx_, {weights.view()}, factor).status(),
                Fails(absl::StatusCode::kInvalidArgument, HasSubstr("activation_factor")));
  }
  Nvfp4MatrixView narrow = weights.view();
  narrow.cols = 16;
  Nvfp4MatrixView empty = weights.view();
  empty.scales = nullptr;
  for (const Nvfp4MatrixView& bad : {narrow, empty}) {
    EXPECT_THAT(EmulatedWeights::EncodeNvfp4(*ctx_, {weights.view(), bad}, 1.0f).status(),
                Fails(absl::StatusCode::kInvalidArgument, HasSubstr("part 1")));
    EXPECT_THAT(EmulatedWeights::EncodeFp8(*ctx_, {weights.view(), bad}).status(),
                Fails(absl::StatusCode::kInvalidArgument, HasSubstr("part 1")));
  }
  const auto w = EmulatedWeights::EncodeNvfp4(*ctx_, {weights.view()}, 1.0f);
  ASSERT_TRUE(w.ok());
  const TestMatrix<bf16> x = RandomMatrix(2, 48, 0, 29);
  TestMatrix<bf16> y(2, 16);
  EXPECT_THAT(EmulatedGemm(*ctx_, x.view(), *w, {}, y.view()),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("x is [2, 48]")));
  const TestMatrix<bf16> fits = RandomMatrix(2, 32, 0, 29);
  EXPECT_THAT(EmulatedGemm(*ctx_, fits.view(), *w, RandomVector(3, 1), y.view()),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("bias has 3")));
  TestMatrix<bf16> short_y(1, 16);
  EXPECT_THAT(EmulatedGemm(*ctx_, fits.view(), *w, {}, short_y.view()),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("y is [1, 16]")));
  TestMatrix<bf16> none(0, 16);
  EXPECT_TRUE(EmulatedGemm(*ctx_, fits.view().Rows(0, 0), *w, {}, none.view()).ok());
  const auto nothing = EmulatedWeights::EncodeNvfp4(*ctx_, {}, 1.0f);
  ASSERT_TRUE(nothing.ok());
  EXPECT_EQ(nothing->rows(), 0);
}

INSTANTIATE_TEST_SUITE_P(Isa, EmulatedGemmTest, testing::ValuesIn(AvailableIsas()), IsaTestName);

}  // namespace
}  // namespace lancet
