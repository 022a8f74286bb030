// Products and the forms of weights they read, against the scalar references.
#include <cmath>

#include "common/safetensors.h"
#include "kernels/cuda/expand_weights.h"
#include "kernels/cuda/few_rows_linear.h"
#include "kernels/cuda/gated_product.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/row_ops.h"
#include "kernels/number_formats.h"
#include "kernels/quantise.h"
#include "kernels/reference/trunk_ref.h"
#include "kernels/scale_tiles.h"
#include "tests/kernels/cuda/cuda_testing.h"

namespace lancet {
namespace {

struct RandomNvfp4 {
  RandomNvfp4(int64_t r, int64_t c, uint64_t seed, float low = 0.001f, float high = 0.02f)
      : rows(r), cols(c), codes(r * c / 2), scales(RandomVector(r * c / 16, seed, low, high)) {
    TestRandom random(seed + 1);
    for (uint8_t& byte : codes) byte = static_cast<uint8_t>(random.Bits());
  }
  Nvfp4MatrixView view() const { return {rows, cols, codes.data(), cols / 2, scales.data(), cols / 16}; }
  std::vector<float> Dense() const {
    return reference::Nvfp4Dequantise(codes.data(), scales.data(), rows, cols);
  }

  int64_t rows, cols;
  std::vector<uint8_t> codes;
  std::vector<bf16> scales;
};

class CudaLinearTest : public CudaTest {
 protected:
  // Panels of a matrix, kept alive by the fixture.
  cuda::PanelWeights Pack(const RandomNvfp4& w, int shift = 0) {
    codes_.push_back(ToDevice(w.codes));
    scales_.push_back(ToDevice(w.scales));
    const int64_t lanes = cuda::PanelWeights::Lanes(w.rows, w.cols);
    panel_codes_.push_back(Poisoned<uint4>(lanes));
    panel_scales_.push_back(Poisoned<uint32_t>(lanes));
    EXPECT_EQ(cuda::PackPanels(codes_.back().data(), scales_.back().data(), w.rows, w.cols,
                               std::ldexp(1.0f, 126 - shift), panel_codes_.back().data(),
                               panel_scales_.back().data(), stream()),
              cudaSuccess);
    cuda::PanelWeights panels;
    panels.codes = panel_codes_.back().data();
    panels.scales = panel_scales_.back().data();
    panels.scale_up = std::ldexp(1.0f, shift);
    panels.rows = w.rows;
    panels.cols = w.cols;
    return panels;
  }

  std::vector<DeviceArray<uint8_t>> codes_;
  std::vector<DeviceArray<bf16>> scales_;
  std::vector<DeviceArray<uint4>> panel_codes_;
  std::vector<DeviceArray<uint32_t>> panel_scales_;
};

// Unit vectors pick single weights: every code at every place of the packed form, exactly.
TEST_F(CudaLinearTest, PanelsHoldEveryWeightExactly) {
  for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{32, 128}, {20, 176}}) {
    const RandomNvfp4 w(rows, cols, 11);
    const std::vector<float> dense = w.Dense();
    cuda::FewRowsArgs args;
    args.panels = Pack(w);
    args.rows = rows;
    args.cols = cols;
    args.output = cuda::FewRowsOutput::kF32;
    args.x_stride = cols;
    args.y_stride = rows;
    args.tokens = 8;
    for (int64_t first = 0; first < cols; first += 8) {
      std::vector<bf16> x(8 * cols);
      for (int64_t t = 0; t < 8; ++t) x[t * cols + first + t] = ToBf16(1.0f);
      const auto device_x = ToDevice(x);
      const auto y = Poisoned<float>(8 * rows);
      args.x = device_x.data();
      args.y_f32 = y.data();
      ASSERT_EQ(cuda::FewRowsLinear(args, stream()), cudaSuccess);
      const std::vector<float> got = ToHost(y);
      for (int64_t t = 0; t < 8; ++t) {
        for (int64_t r = 0; r < rows; ++r) {
          ASSERT_EQ(got[t * rows + r], dense[r * cols + first + t])
              << "row " << r << ", column " << first + t;
        }
      }
    }
  }
}

TEST_F(CudaLinearTest, FewRowsAgreeWithTheReferenceAndDoNotDependOnEachOther) {
  for (const auto& [rows, cols] :
       {std::pair<int64_t, int64_t>{2560, 2048}, {96, 176}, {176, 11008}, {16384, 128}}) {
    SCOPED_TRACE(testing::Message() << rows << " x " << cols);
    const RandomNvfp4 w(rows, cols, 21);
    const TestMatrix<bf16> x = RandomMatrix(8, cols, 16, 22);
    const std::vector<bf16> bias = RandomVector(rows, 23);
    const auto device_x = ToDevice(x.data);
    const auto device_bias = ToDevice(bias);
    cuda::FewRowsArgs args;
    args.x = device_x.data();
    args.x_stride = x.stride;
    args.panels = Pack(w);
    args.rows = rows;
    args.cols = cols;
    args.bias = device_bias.data();
    args.y_stride = rows;
    const std::vector<double> expected = reference::Linear(x.view(), w.Dense(), rows, bias);
    const std::vector<double> magnitude = reference::LinearMagnitude(x.view(), w.Dense(), rows);
    std::vector<bf16> all;
    for (int tokens = 8; tokens >= 1; --tokens) {
      const auto y = Poisoned<bf16>(8 * rows);
      args.tokens = tokens;
      args.y = y.data();
      ASSERT_EQ(cuda::FewRowsLinear(args, stream()), cudaSuccess);
      const std::vector<bf16> got = ToHost(y);
      if (tokens == 8) {
        all = got;
        for (size_t i = 0; i < got.size(); ++i) {
          ASSERT_NEAR(ToFloat(got[i]), expected[i], HalfUlp(expected[i]) + magnitude[i] * cols * 0x1p-23)
              << "element " << i;
        }
      }
      EXPECT_TRUE(SameBits(got.data(), all.data(), tokens * rows)) << tokens << " tokens";
      for (int64_t i = tokens * rows; i < 8 * rows; ++i)
        ASSERT_EQ(got[i].bits, 0xffff) << "beyond the tokens";
    }
  }
}

// Few panels, which warps share; many, which they do not; long rows, which blocks share.
TEST_F(CudaLinearTest, FewRowsFuseNormActivationAndResidual) {
  constexpr int kTokens = 3;
  for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{256, 512}, {16384, 256}, {272, 8192}}) {
    SCOPED_TRACE(testing::Message() << rows << " x " << cols);
    const bool normed = cols < 8192;
    const RandomNvfp4 w(rows, cols, 31);
    const TestMatrix<bf16> x = RandomMatrix(kTokens, cols, 0, 32, 2.0f);
    const std::vector<bf16> norm = RandomVector(cols, 33, 0.5f, 1.5f);
    TestMatrix<bf16> input(kTokens, cols);
    const std::vector<double> exact_norm = reference::RmsNorm(x.view(), norm, 1e-6);
    for (size_t i = 0; i < exact_norm.size(); ++i) {
      input.data[i] = normed ? ToBf16(static_cast<float>(exact_norm[i])) : x.data[i];
    }
    const std::vector<double> product = reference::Linear(input.view(), w.Dense(), rows, {});
    const auto device_x = ToDevice(x.data);
    const auto device_norm = ToDevice(norm);
    cuda::FewRowsArgs args;
    args.x = device_x.data();
    args.x_stride = cols;
    args.tokens = kTokens;
    args.norm = normed ? device_norm.data() : nullptr;
    args.eps = 1e-6f;
    args.panels = Pack(w);
    args.rows = rows;
    args.cols = cols;

    const auto activated = Poisoned<bf16>(kTokens * rows / 2);
    args.output = cuda::FewRowsOutput::kSiluMul;
    args.y = activated.data();
    args.y_stride = rows / 2;
    ASSERT_EQ(cuda::FewRowsLinear(args, stream()), cudaSuccess);
    std::vector<double> expected;
    for (int t = 0; t < kTokens; ++t) {
      for (int64_t r = 0; r < rows / 2; ++r) {
        const double* turn = product.data() + t * rows + r / cuda::kGateUpTurn * 2 * cuda::kGateUpTurn;
        const int64_t i = r % cuda::kGateUpTurn;
        expected.push_back(reference::Silu(turn[i]) * turn[cuda::kGateUpTurn + i]);
      }
    }
    EXPECT_LT(RelativeError(ToHost(activated), expected), 6e-3);

    const std::vector<bf16> stream_rows = RandomVector(kTokens * rows, 34);
    const auto residual = ToDevice(stream_rows);
    args.output = cuda::FewRowsOutput::kResidual;
    args.y = residual.data();
    args.y_stride = rows;
    ASSERT_EQ(cuda::FewRowsLinear(args, stream()), cudaSuccess);
    expected.clear();
    for (size_t i = 0; i < product.size(); ++i) expected.push_back(ToFloat(stream_rows[i]) + product[i]);
    EXPECT_LT(RelativeError(ToHost(residual), expected), 4e-3);
  }
}

TEST_F(CudaLinearTest, GatedProductAgreesWithTheReferenceAndRowsDoNotDependOnEachOther) {
  // Several groups of tiles; tokens that fill no tile.
  constexpr int64_t kInner = 256;
  constexpr int64_t kCols = 384;
  constexpr int64_t kTokens = 7000;
  if (!cuda::HasGatedProduct(kInner, kCols)) GTEST_SKIP() << "not on this device";
  const RandomNvfp4 w(2 * kInner, kCols, 35, 0.02f, 0.2f);
  std::vector<bf16> dense;
  for (const float value : w.Dense()) dense.push_back(ToBf16(value));
  const TestMatrix<bf16> x = RandomMatrix(kTokens, kCols, 0, 36);
  const auto device_w = ToDevice(dense);
  const auto device_x = ToDevice(x.data);
  const auto run = [&](int64_t first, int64_t tokens) {
    const auto y = Poisoned<bf16>((tokens + 1) * kInner);
    cuda::GatedProductArgs args;
    args.x = device_x.data() + first * kCols;
    args.gate_up = device_w.data();
    args.y = y.data();
    args.tokens = tokens;
    args.inner = kInner;
    args.cols = kCols;
    EXPECT_EQ(cuda::GatedProduct(args, stream()), cudaSuccess);
    std::vector<bf16> got = ToHost(y);
    for (int64_t c = 0; c < kInner; ++c)
      EXPECT_EQ(got[tokens * kInner + c].bits, 0xffff) << "beyond the tokens";
    got.resize(tokens * kInner);
    return got;
  };
  const std::vector<bf16> got = run(0, kTokens);
  std::vector<bf16> checked;
  std::vector<double> expected;
  for (const int64_t t : {0, 1, 63, 64, 127, 128, 255, 256, 3000, 6911, 6912, 6999}) {
    const ConstMatrixView<bf16> row(x.data.data() + t * kCols, 1, kCols);
    const std::vector<double> product = reference::Linear(row, w.Dense(), 2 * kInner, {});
    for (int64_t c = 0; c < kInner; ++c) {
      const double* turn = product.data() + c / cuda::kGateUpTurn * 2 * cuda::kGateUpTurn;
      const int64_t i = c % cuda::kGateUpTurn;
      expected.push_back(reference::Silu(turn[i]) * turn[cuda::kGateUpTurn + i]);
      checked.push_back(got[t * kInner + c]);
    }
  }
  EXPECT_LT(RelativeError(checked, expected), 6e-3);
  for (const auto& [first, tokens] : {std::pair<int64_t, int64_t>{0, 1}, {5, 130}, {100, 516}, {6999, 1}}) {
    const std::vector<bf16> part = run(first, tokens);
    EXPECT_TRUE(SameBits(part.data(), got.data() + first * kInner, tokens * kInner))
        << first << ", " << tokens;
  }
}

TEST_F(CudaLinearTest, GatedProductOfE4m3FollowsItsDefinition) {
  constexpr int64_t kInner = 128;
  constexpr int64_t kCols = 512;
  constexpr int64_t kTokens = 150;
  if (!cuda::HasGatedProduct(kInner, kCols)) GTEST_SKIP() << "not on this device";
  const RandomNvfp4 w(2 * kInner, kCols, 37, 0.02f, 0.2f);
  const TestMatrix<bf16> x = RandomMatrix(kTokens, kCols, 0, 38);
  const Fp8Weights weights = EncodeFp8Weights(w.view());
  std::vector<uint8_t> x_bytes(kTokens * kCols);
  std::vector<float> x_factors;
  for (int64_t t = 0; t < kTokens; ++t) {
    x_factors.push_back(QuantiseFp8Row(absl::MakeConstSpan(x.view().row(t), kCols),
                                       absl::MakeSpan(x_bytes).subspan(t * kCols, kCols)));
  }
  const auto device_w = ToDevice(weights.bytes);
  const auto device_w_factors = ToDevice(weights.factors);
  const auto device_x = ToDevice(x_bytes);
  const auto device_x_factors = ToDevice(x_factors);
  const auto y = Poisoned<bf16>(kTokens * kInner);
  cuda::GatedProductArgs args;
  args.x = device_x.data();
  args.x_factors = device_x_factors.data();
  args.gate_up = device_w.data();
  args.gate_up_factors = device_w_factors.data();
  args.y = y.data();
  args.tokens = kTokens;
  args.inner = kInner;
  args.cols = kCols;
  ASSERT_EQ(cuda::GatedProduct(args, stream()), cudaSuccess);
  const auto product = [&](int64_t t, int64_t r) {
    double sum = 0;
    for (int64_t c = 0; c < kCols; ++c) {
      sum += static_cast<double>(FromE4m3(x_bytes[t * kCols + c])) * FromE4m3(weights.bytes[r * kCols + c]);
    }
    return sum * x_factors[t] * weights.factors[r];
  };
  std::vector<double> expected;
  for (int64_t t = 0; t < kTokens; ++t) {
    for (int64_t c = 0; c < kInner; ++c) {
      const int64_t gate = c / cuda::kGateUpTurn * 2 * cuda::kGateUpTurn + c % cuda::kGateUpTurn;
      expected.push_back(reference::Silu(product(t, gate)) * product(t, gate + cuda::kGateUpTurn));
    }
  }
  // bf16 rounding, and sums in the tensor cores that keep about 14 bits.
  EXPECT_LT(RelativeError(ToHost(y), expected), 8e-3);
}

TEST_F(CudaLinearTest, LargeScalesAreShiftedAndDenseWeightsServe) {
  const RandomNvfp4 w(48, 128, 41, 100.0f, 400.0f);
  const TestMatrix<bf16> x = RandomMatrix(2, 128, 0, 42);
  const auto device_x = ToDevice(x.data);
  cuda::FewRowsArgs args;
  args.x = device_x.data();
  args.x_stride = 128;
  args.tokens = 2;
  args.rows = 48;
  args.cols = 128;
  args.y_stride = 48;
  const std::vector<double> expected = reference::Linear(x.view(), w.Dense(), 48, {});
  args.panels = Pack(w, 9);
  const auto y = Poisoned<bf16>(2 * 48);
  args.y = y.data();
  ASSERT_EQ(cuda::FewRowsLinear(args, stream()), cudaSuccess);
  EXPECT_LT(RelativeError(ToHost(y), expected), 3e-3);

  std::vector<bf16> dense;
  for (const float value : w.Dense()) dense.push_back(ToBf16(value));
  const auto device_dense = ToDevice(dense);
  args.panels = {};
  args.dense = device_dense.data();
  const auto z = Poisoned<bf16>(2 * 48);
  args.y = z.data();
  ASSERT_EQ(cuda::FewRowsLinear(args, stream()), cudaSuccess);
  EXPECT_LT(RelativeError(ToHost(z), expected), 3e-3);
}

TEST_F(CudaLinearTest, ExpandedWeightsEqualTheDefinition) {
  const RandomNvfp4 w(130, 176, 51);
  const auto codes = ToDevice(w.codes);
  const auto scales = ToDevice(w.scales);
  const auto expanded = Poisoned<bf16>(130 * 176);
  ASSERT_EQ(cuda::ExpandToBf16(codes.data(), scales.data(), 130, 176, expanded.data(), 176, stream()),
            cudaSuccess);
  const std::vector<bf16> got = ToHost(expanded);
  const std::vector<float> dense = w.Dense();
  for (size_t i = 0; i < got.size(); ++i) ASSERT_EQ(ToFloat(got[i]), dense[i]) << "element " << i;

  const auto fp8 = Poisoned<uint8_t>(130 * 176);
  const auto factors = Poisoned<float>(130);
  ASSERT_EQ(
      cuda::ExpandToFp8(codes.data(), scales.data(), 130, 176, fp8.data(), 176, factors.data(), stream()),
      cudaSuccess);
  const Fp8Weights definition = EncodeFp8Weights(w.view());
  EXPECT_EQ(ToHost(fp8), definition.bytes);
  EXPECT_EQ(ToHost(factors), definition.factors);

  const TwoLevelScales encoded = EncodeScales(w.scales);
  const auto factor = ToDevice(std::vector<float>{encoded.factor});
  const auto tiled = Poisoned<uint8_t>(ScaleTileBytes(130, 11));
  ASSERT_EQ(cuda::TileScales(scales.data(), 130, 11, factor.data(), tiled.data(), stream()), cudaSuccess);
  EXPECT_EQ(ToHost(tiled), TileScales(encoded.bytes, 130, 11));
}

TEST_F(CudaLinearTest, GoldenScalesAreTiledByTheDeviceToo) {
  auto file = SafetensorsFile::Open(LANCET_TEST_DATA "/golden/nvfp4.safetensors");
  ASSERT_TRUE(file.ok()) << file.status();
  for (const std::string group : {"gauss", "edge", "gemm", "odd"}) {
    SCOPED_TRACE(group);
    const TensorView scales = *(*file)->Get(group + ".scales_bf16");
    const TensorView tiled = *(*file)->Get(group + ".swizzled");
    const auto device_scales =
        ToDevice(std::vector<bf16>(scales.as<bf16>(), scales.as<bf16>() + scales.num_elements()));
    const TensorView global = *(*file)->Get(group + ".two_level_global");
    const auto factor = ToDevice(std::vector<float>{global.as<float>()[0]});
    const auto out = Poisoned<uint8_t>(tiled.num_elements());
    ASSERT_EQ(cuda::TileScales(device_scales.data(), scales.shape[0], scales.shape[1], factor.data(),
                               out.data(), stream()),
              cudaSuccess);
    EXPECT_EQ(ToHost(out),
              std::vector<uint8_t>(tiled.as<uint8_t>(), tiled.as<uint8_t>() + tiled.num_elements()));
  }
}

TEST_F(CudaLinearTest, Bf16MatmulHasBiasAccumulationAndF32) {
  constexpr int64_t kTokens = 70;
  constexpr int64_t kRows = 96;
  constexpr int64_t kCols = 256;
  const RandomNvfp4 w(kRows, kCols, 61);
  std::vector<bf16> dense;
  for (const float value : w.Dense()) dense.push_back(ToBf16(value));
  const TestMatrix<bf16> x = RandomMatrix(kTokens, kCols, 0, 62);
  const std::vector<bf16> bias = RandomVector(kRows, 63, -0.1f, 0.1f);
  const std::vector<bf16> before = RandomVector(kTokens * kRows, 64, -0.1f, 0.1f);
  const auto device_w = ToDevice(dense);
  const auto device_x = ToDevice(x.data);
  const auto device_bias = ToDevice(bias);
  MatmulPlans plans(*ctx_);
  MatmulShape shape;
  shape.tokens = kTokens;
  shape.rows = kRows;
  shape.cols = kCols;
  shape.x_stride = kCols;
  shape.y_stride = kRows;
  shape.has_bias = true;
  MatmulArgs args;
  args.x = device_x.data();
  args.w = device_w.data();
  args.bias = device_bias.data();
  const auto y = Poisoned<bf16>(kTokens * kRows);
  args.y = y.data();
  absl::Status status = plans.Run(shape, args);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_LT(RelativeError(ToHost(y), reference::Linear(x.view(), w.Dense(), kRows, bias)), 3e-3);

  shape.has_bias = false;
  shape.accumulate = true;
  const auto z = ToDevice(before);
  args.y = z.data();
  status = plans.Run(shape, args);
  ASSERT_TRUE(status.ok()) << status;
  std::vector<double> expected = reference::Linear(x.view(), w.Dense(), kRows, {});
  for (size_t i = 0; i < expected.size(); ++i) expected[i] += ToFloat(before[i]);
  EXPECT_LT(RelativeError(ToHost(z), expected), 3e-3);

  shape.accumulate = false;
  shape.output = MatmulOutput::kF32;
  const auto f = Poisoned<float>(kTokens * kRows);
  args.y = f.data();
  status = plans.Run(shape, args);
  ASSERT_TRUE(status.ok()) << status;
  const std::vector<float> sums = ToHost(f);
  const std::vector<double> exact = reference::Linear(x.view(), w.Dense(), kRows, {});
  const std::vector<double> magnitude = reference::LinearMagnitude(x.view(), w.Dense(), kRows);
  for (size_t i = 0; i < sums.size(); ++i) ASSERT_NEAR(sums[i], exact[i], magnitude[i] * kCols * 0x1p-23);
}

TEST_F(CudaLinearTest, PlansThatWereDroppedComeBackAlike) {
  constexpr int64_t kRows = 64;
  constexpr int64_t kCols = 128;
  constexpr int64_t kTokens = MatmulPlans::kMaxPlans + 8;
  const auto w = ToDevice(RandomVector(kRows * kCols, 65));
  const auto x = ToDevice(RandomVector(kTokens * kCols, 66));
  MatmulPlans plans(*ctx_);
  const auto run = [&](int64_t tokens) {
    const auto y = Poisoned<bf16>(tokens * kRows);
    MatmulShape shape;
    shape.tokens = tokens;
    shape.rows = kRows;
    shape.cols = kCols;
    shape.x_stride = kCols;
    shape.y_stride = kRows;
    MatmulArgs args;
    args.x = x.data();
    args.w = w.data();
    args.y = y.data();
    const absl::Status status = plans.Run(shape, args);
    EXPECT_TRUE(status.ok()) << status;
    return ToHost(y);
  };
  const std::vector<bf16> first = run(70);
  for (int64_t tokens = 1; tokens <= kTokens; ++tokens) {
    if (tokens != 70) run(tokens);
  }
  EXPECT_TRUE(run(70) == first);
}

TEST_F(CudaLinearTest, Fp8MatmulFollowsItsDefinitionWhereTheDeviceHasIt) {
  constexpr int64_t kTokens = 128;
  constexpr int64_t kRows = 256;
  constexpr int64_t kCols = 512;
  const RandomNvfp4 w(kRows, kCols, 71);
  const TestMatrix<bf16> x = RandomMatrix(kTokens, kCols, 0, 72);
  const Fp8Weights weights = EncodeFp8Weights(w.view());
  std::vector<uint8_t> x_bytes(kTokens * kCols);
  std::vector<float> x_factors;
  for (int64_t t = 0; t < kTokens; ++t) {
    x_factors.push_back(QuantiseFp8Row(absl::MakeConstSpan(x.view().row(t), kCols),
                                       absl::MakeSpan(x_bytes).subspan(t * kCols, kCols)));
  }
  const auto device_w = ToDevice(weights.bytes);
  const auto device_w_factors = ToDevice(weights.factors);
  const auto device_x = ToDevice(x_bytes);
  const auto device_x_factors = ToDevice(x_factors);
  const auto y = Poisoned<bf16>(kTokens * kRows);
  MatmulPlans plans(*ctx_);
  MatmulShape shape;
  shape.input = MatmulInput::kFp8;
  shape.tokens = kTokens;
  shape.rows = kRows;
  shape.cols = kCols;
  shape.x_stride = kCols;
  shape.y_stride = kRows;
  MatmulArgs args;
  args.x = device_x.data();
  args.w = device_w.data();
  args.x_scales = device_x_factors.data();
  args.w_scales = device_w_factors.data();
  args.y = y.data();
  const absl::Status status = plans.Run(shape, args);
  if (absl::IsUnimplemented(status)) GTEST_SKIP() << status;
  ASSERT_TRUE(status.ok()) << status;
  std::vector<double> expected;
  for (int64_t t = 0; t < kTokens; ++t) {
    for (int64_t r = 0; r < kRows; ++r) {
      double sum = 0;
      for (int64_t c = 0; c < kCols; ++c) {
        sum += static_cast<double>(FromE4m3(x_bytes[t * kCols + c])) * FromE4m3(weights.bytes[r * kCols + c]);
      }
      expected.push_back(sum * x_factors[t] * weights.factors[r]);
    }
  }
  EXPECT_LT(RelativeError(ToHost(y), expected), 4e-3);
}

TEST_F(CudaLinearTest, Nvfp4MatmulFollowsItsDefinitionWhereTheDeviceHasIt) {
  constexpr int64_t kTokens = 129;
  constexpr int64_t kRows = 256;
  constexpr int64_t kCols = 512;
  const RandomNvfp4 w(kRows, kCols, 81);
  const TestMatrix<bf16> x = RandomMatrix(kTokens, kCols, 0, 82);
  const TwoLevelScales weights = EncodeScales(w.scales);
  const float x_factor = Nvfp4Factor(x.data);
  std::vector<uint8_t> x_codes(kTokens * kCols / 2);
  std::vector<uint8_t> x_scales(kTokens * kCols / 16);
  for (int64_t t = 0; t < kTokens; ++t) {
    QuantiseNvfp4Row(absl::MakeConstSpan(x.view().row(t), kCols), x_factor,
                     absl::MakeSpan(x_codes).subspan(t * kCols / 2, kCols / 2),
                     absl::MakeSpan(x_scales).subspan(t * kCols / 16, kCols / 16));
  }
  const auto device_w = ToDevice(w.codes);
  const auto device_w_scales = ToDevice(TileScales(weights.bytes, kRows, kCols / 16));
  const auto device_x = ToDevice(x_codes);
  const auto device_x_scales = ToDevice(TileScales(x_scales, kTokens, kCols / 16));
  const auto alpha_beta = ToDevice(std::vector<float>{x_factor * weights.factor, 0.0f});
  const auto y = Poisoned<bf16>(kTokens * kRows);
  MatmulPlans plans(*ctx_);
  MatmulShape shape;
  shape.input = MatmulInput::kNvfp4;
  shape.tokens = kTokens;
  shape.rows = kRows;
  shape.cols = kCols;
  shape.x_stride = kCols;
  shape.y_stride = kRows;
  MatmulArgs args;
  args.x = device_x.data();
  args.w = device_w.data();
  args.x_scales = device_x_scales.data();
  args.w_scales = device_w_scales.data();
  args.alpha = alpha_beta.data();
  args.beta = alpha_beta.data() + 1;
  args.y = y.data();
  const absl::Status status = plans.Run(shape, args);
  if (absl::IsUnimplemented(status)) GTEST_SKIP() << status;
  ASSERT_TRUE(status.ok()) << status;
  const auto value = [](const std::vector<uint8_t>& codes, const std::vector<uint8_t>& scales, int64_t i) {
    const uint8_t byte = codes[i / 2];
    return static_cast<double>(FromE2m1(i % 2 == 0 ? byte & 15 : byte >> 4)) * FromE4m3(scales[i / 16]);
  };
  std::vector<double> expected;
  for (int64_t t = 0; t < kTokens; ++t) {
    for (int64_t r = 0; r < kRows; ++r) {
      double sum = 0;
      for (int64_t c = 0; c < kCols; ++c) {
        sum += value(x_codes, x_scales, t * kCols + c) * value(w.codes, weights.bytes, r * kCols + c);
      }
      expected.push_back(sum * x_factor * weights.factor);
    }
  }
  EXPECT_LT(RelativeError(ToHost(y), expected), 4e-3);
}

}  // namespace
}  // namespace lancet
