// Row-wise steps on the device against the scalar references and, where quantised, the CPU's definition bit
// for bit.
#include "kernels/cuda/row_ops.h"

#include "kernels/cuda/few_rows_linear.h"
#include "kernels/cuda/qk_rope.h"
#include "kernels/quantise.h"
#include "kernels/reference/trunk_ref.h"
#include "kernels/scale_tiles.h"
#include "tests/kernels/cuda/cuda_testing.h"

namespace lancet {
namespace {

class CudaRowOpsTest : public CudaTest {
 protected:
  // Norm or activation results as bf16, then quantised in both ways and compared with the CPU's quantisation
  // of them.
  template <typename Op>
  std::vector<bf16> CheckAllOutputs(int64_t rows, int64_t cols, Op op) {
    const auto plain = Poisoned<bf16>(rows * cols);
    cuda::RowOutput output;
    output.bf16_rows = plain.data();
    EXPECT_EQ(op(output), cudaSuccess);
    const std::vector<bf16> values = ToHost(plain);

    const auto fp8 = Poisoned<uint8_t>(rows * cols);
    const auto factors = Poisoned<float>(rows);
    output = {};
    output.fp8_rows = fp8.data();
    output.fp8_factors = factors.data();
    EXPECT_EQ(op(output), cudaSuccess);
    const std::vector<uint8_t> fp8_bytes = ToHost(fp8);
    const std::vector<float> fp8_factors = ToHost(factors);
    std::vector<uint8_t> row_bytes(cols);
    for (int64_t r = 0; r < rows; ++r) {
      const absl::Span<const bf16> row = absl::MakeConstSpan(values).subspan(r * cols, cols);
      EXPECT_EQ(QuantiseFp8Row(row, absl::MakeSpan(row_bytes)), fp8_factors[r]) << "row " << r;
      EXPECT_TRUE(std::equal(row_bytes.begin(), row_bytes.end(), fp8_bytes.begin() + r * cols))
          << "row " << r;
    }

    const float factor = Nvfp4Factor(values);
    const auto device_factor = Poisoned<float>(1);
    const auto scratch = Poisoned<float>(cuda::kAmaxBlocks);
    EXPECT_EQ(cuda::Nvfp4Factor(plain.data(), rows * cols, scratch.data(), device_factor.data(), stream()),
              cudaSuccess);
    EXPECT_EQ(ToHost(device_factor)[0], factor);
    const auto codes = Poisoned<uint8_t>(rows * cols / 2);
    const auto scales = ToDevice(std::vector<uint8_t>(ScaleTileBytes(rows, cols / 16)));
    output = {};
    output.fp4_codes = codes.data();
    output.fp4_scales = scales.data();
    output.fp4_factor = device_factor.data();
    EXPECT_EQ(op(output), cudaSuccess);
    std::vector<uint8_t> expected_codes(rows * cols / 2);
    std::vector<uint8_t> expected_scales(rows * cols / 16);
    for (int64_t r = 0; r < rows; ++r) {
      QuantiseNvfp4Row(absl::MakeConstSpan(values).subspan(r * cols, cols), factor,
                       absl::MakeSpan(expected_codes).subspan(r * cols / 2, cols / 2),
                       absl::MakeSpan(expected_scales).subspan(r * cols / 16, cols / 16));
    }
    EXPECT_EQ(ToHost(codes), expected_codes);
    EXPECT_EQ(ToHost(scales), TileScales(expected_scales, rows, cols / 16));
    return values;
  }
};

TEST_F(CudaRowOpsTest, RmsNormAgreesWithTheReferenceInEveryFormat) {
  for (const int64_t cols : {64, 512, 2048, 4112}) {
    SCOPED_TRACE(cols);
    const int64_t rows = 37;
    const TestMatrix<bf16> x = RandomMatrix(rows, cols, 16, 3, 2.0f);
    const std::vector<bf16> weight = RandomVector(cols, 4, 0.5f, 1.5f);
    const auto device_x = ToDevice(x.data);
    const auto device_weight = ToDevice(weight);
    const std::vector<bf16> y = CheckAllOutputs(rows, cols, [&](const cuda::RowOutput& output) {
      return cuda::RmsNorm(device_x.data(), x.stride, device_weight.data(), 1e-6f, rows, cols, output,
                           stream());
    });
    const std::vector<double> expected = reference::RmsNorm(x.view(), weight, 1e-6);
    for (size_t i = 0; i < y.size(); ++i) {
      // One bf16 step: the value before the weight may round the other way.
      ASSERT_NEAR(ToFloat(y[i]), expected[i], 3 * HalfUlp(expected[i]) + 1e-9) << "element " << i;
    }
  }
}

TEST_F(CudaRowOpsTest, SiluMulAgreesWithTheReferenceInEveryFormat) {
  for (const int64_t cols : {16, 1024, 11008}) {
    SCOPED_TRACE(cols);
    const int64_t rows = 9;
    const TestMatrix<bf16> x = RandomMatrix(rows, 2 * cols, 0, 5, 4.0f);
    const auto device_x = ToDevice(x.data);
    const std::vector<bf16> y = CheckAllOutputs(rows, cols, [&](const cuda::RowOutput& output) {
      return cuda::SiluMul(device_x.data(), rows, cols, output, stream());
    });
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) {
        const bf16* turn = x.view().row(r) + c / cuda::kGateUpTurn * 2 * cuda::kGateUpTurn;
        const int64_t i = c % cuda::kGateUpTurn;
        const double expected = reference::Silu(ToFloat(turn[i])) * ToFloat(turn[cuda::kGateUpTurn + i]);
        ASSERT_NEAR(ToFloat(y[r * cols + c]), expected, 4 * HalfUlp(expected) + 1e-9);
      }
    }
  }
}

TEST_F(CudaRowOpsTest, QuantisationAloneKeepsTheValues) {
  const TestMatrix<bf16> x = RandomMatrix(130, 256, 0, 8, 1.0f);
  const auto device_x = ToDevice(x.data);
  const std::vector<bf16> y = CheckAllOutputs(130, 256, [&](const cuda::RowOutput& output) {
    return cuda::QuantiseRows(device_x.data(), 256, 130, 256, output, stream());
  });
  EXPECT_TRUE(y == x.data);
}

TEST_F(CudaRowOpsTest, ResidualAddsRoundedSums) {
  const std::vector<bf16> x = RandomVector(4096, 1);
  std::vector<float> delta;
  TestRandom random(2);
  for (int i = 0; i < 4096; ++i) delta.push_back(random.Uniform(-1, 1));
  const auto device_x = ToDevice(x);
  const auto device_delta = ToDevice(delta);
  ASSERT_EQ(cuda::AddResidual(device_delta.data(), 4096, device_x.data(), stream()), cudaSuccess);
  const std::vector<bf16> y = ToHost(device_x);
  for (int i = 0; i < 4096; ++i) EXPECT_EQ(y[i], ToBf16(ToFloat(x[i]) + RoundToBf16(delta[i])));
}

TEST_F(CudaRowOpsTest, QkNormRopeAgreesWithTheReferenceInBothModes) {
  constexpr int kHeads = 4;
  constexpr int kKvHeads = 2;
  constexpr int64_t kRows = 11;
  for (const int head_dim : {64, 128, 256}) {
    SCOPED_TRACE(head_dim);
    const int64_t cols = (kHeads + 2 * kKvHeads) * head_dim;
    const TestMatrix<bf16> qkv = RandomMatrix(kRows, cols, 0, 6, 3.0f);
    const std::vector<bf16> q_norm = RandomVector(head_dim, 7, 0.5f, 1.5f);
    const std::vector<bf16> k_norm = RandomVector(head_dim, 8, 0.5f, 1.5f);
    const std::vector<bf16> cos = RandomVector(kRows * head_dim / 2, 9);
    const std::vector<bf16> sin = RandomVector(kRows * head_dim / 2, 10);
    std::vector<uint8_t> wide(kRows);
    for (int64_t r = 0; r < kRows; ++r) wide[r] = r % 2;
    constexpr int64_t kLayers = 2;
    constexpr int kLayer = 1;
    const int64_t kv_cols = kKvHeads * head_dim;
    const int64_t layer_stride = 2 * kRows * kv_cols;
    const auto device_qkv = ToDevice(qkv.data);
    const auto cache = Poisoned<bf16>(kLayers * layer_stride);
    std::vector<cuda::KvSlot> slots;
    for (int64_t r = 0; r < kRows; ++r) {
      slots.push_back({cache.data() + (kRows - 1 - r) * kv_cols, layer_stride, kRows * kv_cols});
    }
    const auto device_slots = ToDevice(slots);
    const auto device_q_norm = ToDevice(q_norm);
    const auto device_k_norm = ToDevice(k_norm);
    const auto device_cos = ToDevice(cos);
    const auto device_sin = ToDevice(sin);
    const auto device_wide = ToDevice(wide);
    cuda::QkRopeArgs args;
    args.qkv = device_qkv.data();
    args.stride = cols;
    args.rows = kRows;
    args.heads = kHeads;
    args.kv_heads = kKvHeads;
    args.head_dim = head_dim;
    args.q_norm = device_q_norm.data();
    args.k_norm = device_k_norm.data();
    args.eps = 1e-6f;
    args.cos = device_cos.data();
    args.sin = device_sin.data();
    args.wide = device_wide.data();
    args.slots = device_slots.data();
    args.layer = kLayer;
    ASSERT_EQ(cuda::QkNormRope(args, stream()), cudaSuccess);
    const std::vector<bf16> q = ToHost(device_qkv);
    const std::vector<bf16> kv = ToHost(cache);
    for (int64_t r = 0; r < kRows; ++r) {
      for (int h = 0; h < kHeads + 2 * kKvHeads; ++h) {
        const bf16* in = qkv.view().row(r) + h * head_dim;
        const int64_t slot = kLayer * layer_stride + (kRows - 1 - r) * kv_cols;
        const bf16* out = h < kHeads ? q.data() + r * cols + h * head_dim
                          : h < kHeads + kKvHeads
                              ? kv.data() + slot + (h - kHeads) * head_dim
                              : kv.data() + slot + kRows * kv_cols + (h - kHeads - kKvHeads) * head_dim;
        if (h >= kHeads + kKvHeads) {
          EXPECT_TRUE(SameBits(in, out, head_dim)) << "value of row " << r;
          continue;
        }
        const std::vector<double> expected = reference::NormRopeHead(
            absl::MakeConstSpan(in, head_dim), h < kHeads ? q_norm : k_norm, 1e-6,
            absl::MakeConstSpan(cos).subspan(r * head_dim / 2, head_dim / 2),
            absl::MakeConstSpan(sin).subspan(r * head_dim / 2, head_dim / 2), wide[r] != 0);
        for (int i = 0; i < head_dim; ++i) {
          // f32 inside: half a step of the result; with roundings between, a step of terms up to 4.
          const double tolerance =
              wide[r] != 0 ? HalfUlp(expected[i]) + 1e-5 : HalfUlp(expected[i]) + 4.0 / 128;
          EXPECT_NEAR(ToFloat(out[i]), expected[i], tolerance) << "row " << r << ", head " << h << ", " << i;
        }
      }
    }
    // The other layer is untouched.
    for (int64_t i = 0; i < layer_stride; ++i) ASSERT_EQ(kv[i].bits, 0xffff);
  }
}

}  // namespace
}  // namespace lancet
