// Small number formats and re-encodings against the golden file, and their own rules.
#include "kernels/quantise.h"

#include <cmath>

#include "common/safetensors.h"
#include "gtest/gtest.h"
#include "kernels/number_formats.h"
#include "kernels/scale_tiles.h"
#include "tests/kernels/kernel_testing.h"

namespace lancet {
namespace {

class QuantiseGoldenTest : public testing::Test {
 protected:
  void SetUp() override {
    auto file = SafetensorsFile::Open(LANCET_TEST_DATA "/golden/nvfp4.safetensors");
    ASSERT_TRUE(file.ok()) << file.status();
    file_ = *std::move(file);
  }
  TensorView Get(const std::string& name) {
    auto tensor = file_->Get(name);
    EXPECT_TRUE(tensor.ok()) << tensor.status();
    return *tensor;
  }
  std::unique_ptr<SafetensorsFile> file_;
};

TEST_F(QuantiseGoldenTest, E4m3RoundsLikeTheGolden) {
  const TensorView in = Get("e4m3.in");
  const TensorView out = Get("e4m3.out");
  for (int64_t i = 0; i < in.num_elements(); ++i) {
    EXPECT_EQ(ToE4m3(in.as<float>()[i]), out.as<uint8_t>()[i]) << in.as<float>()[i];
  }
}

TEST_F(QuantiseGoldenTest, ScalesAreReencodedAndTiledLikeTheGolden) {
  for (const std::string group : {"gauss", "edge", "gemm", "odd"}) {
    SCOPED_TRACE(group);
    const TensorView scales = Get(group + ".scales_bf16");
    const TensorView bytes = Get(group + ".two_level");
    const TensorView tiled = Get(group + ".swizzled");
    const TwoLevelScales encoded =
        EncodeScales(absl::MakeSpan(scales.as<bf16>(), static_cast<size_t>(scales.num_elements())));
    EXPECT_EQ(encoded.factor, Get(group + ".two_level_global").as<float>()[0]);
    for (int64_t i = 0; i < bytes.num_elements(); ++i) {
      EXPECT_EQ(encoded.bytes[i], bytes.as<uint8_t>()[i]) << "scale " << i;
    }
    const std::vector<uint8_t> ours = TileScales(encoded.bytes, scales.shape[0], scales.shape[1]);
    ASSERT_EQ(static_cast<int64_t>(ours.size()), tiled.num_elements());
    for (size_t i = 0; i < ours.size(); ++i) EXPECT_EQ(ours[i], tiled.as<uint8_t>()[i]) << "byte " << i;
  }
}

TEST_F(QuantiseGoldenTest, TilesAreOrderedLikeTheGolden) {
  const TensorView scales = Get("layout.scales");
  const TensorView tiled = Get("layout.swizzled");
  const std::vector<uint8_t> ours =
      TileScales(absl::MakeSpan(scales.as<uint8_t>(), static_cast<size_t>(scales.num_elements())),
                 scales.shape[0], scales.shape[1]);
  ASSERT_EQ(static_cast<int64_t>(ours.size()), tiled.num_elements());
  for (size_t i = 0; i < ours.size(); ++i) EXPECT_EQ(ours[i], tiled.as<uint8_t>()[i]) << "byte " << i;
}

// Codes x bytes x factor is what a block-scaled unit multiplies: the golden has that product in f64.
TEST_F(QuantiseGoldenTest, TwoLevelProductAgreesWithTheGolden) {
  for (const std::string group : {"gauss", "edge", "gemm", "odd"}) {
    SCOPED_TRACE(group);
    const TensorView codes = Get(group + ".qweight");
    const TensorView scales = Get(group + ".scales_bf16");
    const TensorView x = Get(group + ".x");
    const TensorView y = Get(group + ".y_two_level");
    const int64_t rows = scales.shape[0];
    const int64_t blocks = scales.shape[1];
    const int64_t cols = blocks * 16;
    const TwoLevelScales encoded =
        EncodeScales(absl::MakeSpan(scales.as<bf16>(), static_cast<size_t>(scales.num_elements())));
    for (int64_t t = 0; t < x.shape[0]; ++t) {
      for (int64_t r = 0; r < rows; ++r) {
        double sum = 0;
        double magnitude = 0;
        for (int64_t c = 0; c < cols; ++c) {
          const uint8_t byte = codes.as<uint8_t>()[r * cols / 2 + c / 2];
          const double w = static_cast<double>(FromE2m1(c % 2 == 0 ? byte & 15 : byte >> 4)) *
                           FromE4m3(encoded.bytes[r * blocks + c / 16]);
          sum += w * ToFloat(x.as<bf16>()[t * cols + c]);
          magnitude += std::fabs(w * ToFloat(x.as<bf16>()[t * cols + c]));
        }
        EXPECT_NEAR(sum * encoded.factor, y.as<double>()[t * rows + r],
                    magnitude * encoded.factor * 1e-6 + 1e-30)
            << "token " << t << ", row " << r;
      }
    }
  }
}

TEST(NumberFormatsTest, E2m1RoundsToNearestAndTiesToEven) {
  for (int code = 0; code < 16; ++code) EXPECT_EQ(ToE2m1(FromE2m1(code)), code);
  const std::pair<float, float> ties[] = {{0.25f, 0.0f}, {0.75f, 1.0f}, {1.25f, 1.0f}, {1.75f, 2.0f},
                                          {2.5f, 2.0f},  {3.5f, 4.0f},  {5.0f, 4.0f}};
  for (const auto& [tie, even] : ties) {
    EXPECT_EQ(FromE2m1(ToE2m1(tie)), even) << tie;
    EXPECT_EQ(FromE2m1(ToE2m1(-tie)), -even) << tie;
    EXPECT_LE(FromE2m1(ToE2m1(std::nextafter(tie, 0.0f))), tie);
    EXPECT_GE(FromE2m1(ToE2m1(std::nextafter(tie, 10.0f))), tie);
  }
  EXPECT_EQ(FromE2m1(ToE2m1(1e9f)), 6.0f);
  EXPECT_EQ(FromE2m1(ToE2m1(-1e9f)), -6.0f);
}

TEST(NumberFormatsTest, E4m3KeepsItsOwnValuesAndSaturates) {
  for (int byte = 0; byte < 256; ++byte) {
    if ((byte & 0x7f) == 0x7f) {
      EXPECT_TRUE(std::isnan(FromE4m3(static_cast<uint8_t>(byte))));
      continue;
    }
    EXPECT_EQ(ToE4m3(FromE4m3(static_cast<uint8_t>(byte))), byte);
  }
  EXPECT_EQ(FromE4m3(ToE4m3(1e9f)), 448.0f);
  EXPECT_EQ(FromE4m3(ToE4m3(-460.0f)), -448.0f);
  EXPECT_EQ(ToE4m3(std::nanf("")), 0x7f);
}

TEST(QuantiseTest, Nvfp4ActivationsStayWithinHalfAStep) {
  const std::vector<bf16> x = RandomVector(256, 3, -4.0f, 4.0f);
  const float factor = Nvfp4Factor(x);
  std::vector<uint8_t> codes(128);
  std::vector<uint8_t> scales(16);
  QuantiseNvfp4Row(x, factor, absl::MakeSpan(codes), absl::MakeSpan(scales));
  for (int64_t i = 0; i < 256; ++i) {
    const uint8_t code = i % 2 == 0 ? codes[i / 2] & 15 : codes[i / 2] >> 4;
    const float step = FromE4m3(scales[i / 16]) * factor;
    // Codes are at most 2 apart; a scale that was rounded down lets the largest value exceed 6 by 1/16.
    EXPECT_NEAR(FromE2m1(code) * step, ToFloat(x[i]), 1.0f * step + 1e-6f) << "element " << i;
  }
}

TEST(QuantiseTest, ZerosStayZeroInEveryFormat) {
  const std::vector<bf16> zeros(32);
  EXPECT_EQ(Nvfp4Factor(zeros), 1.0f);
  std::vector<uint8_t> codes(16, 0xff);
  std::vector<uint8_t> scales(2, 0xff);
  QuantiseNvfp4Row(zeros, 1.0f, absl::MakeSpan(codes), absl::MakeSpan(scales));
  for (const uint8_t code : codes) EXPECT_EQ(code, 0);
  for (const uint8_t scale : scales) EXPECT_EQ(scale, 0);
  std::vector<uint8_t> bytes(32, 0xff);
  EXPECT_EQ(QuantiseFp8Row(zeros, absl::MakeSpan(bytes)), 1.0f);
  for (const uint8_t byte : bytes) EXPECT_EQ(byte, 0);
}

TEST(QuantiseTest, Fp8RowsUseTheWholeRange) {
  const std::vector<bf16> x = RandomVector(512, 5, -0.3f, 0.3f);
  std::vector<uint8_t> bytes(512);
  const float factor = QuantiseFp8Row(x, absl::MakeSpan(bytes));
  float largest = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const float value = FromE4m3(bytes[i]) * factor;
    EXPECT_NEAR(value, ToFloat(x[i]), std::fabs(ToFloat(x[i])) / 16 + factor * 0x1p-10f) << "element " << i;
    largest = std::max(largest, std::fabs(FromE4m3(bytes[i])));
  }
  EXPECT_EQ(largest, kMaxE4m3);
}

TEST(QuantiseTest, Fp8WeightsFollowTheDequantisedOnes) {
  constexpr int64_t kRows = 5;
  constexpr int64_t kCols = 64;
  std::vector<uint8_t> codes(kRows * kCols / 2);
  TestRandom random(7);
  for (uint8_t& c : codes) c = static_cast<uint8_t>(random.Bits());
  std::vector<bf16> scales = RandomVector(kRows * kCols / 16, 9, 0.001f, 0.02f);
  for (int64_t i = 0; i < kCols / 16; ++i) scales[i] = bf16{};  // a row of zeros
  const Fp8Weights w = EncodeFp8Weights({kRows, kCols, codes.data(), kCols / 2, scales.data(), kCols / 16});
  EXPECT_EQ(w.factors[0], 1.0f);
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t c = 0; c < kCols; ++c) {
      const uint8_t byte = codes[r * kCols / 2 + c / 2];
      const float exact =
          FromE2m1(c % 2 == 0 ? byte & 15 : byte >> 4) * ToFloat(scales[r * kCols / 16 + c / 16]);
      EXPECT_NEAR(FromE4m3(w.bytes[r * kCols + c]) * w.factors[r], exact,
                  std::fabs(exact) / 16 + w.factors[r] * 0x1p-10f);
    }
  }
}

}  // namespace
}  // namespace lancet
