// The product against the golden file: weights as the checkpoint stores them, results of an f64 oracle.
#include "common/safetensors.h"
#include "kernels/nvfp4.h"
#include "kernels/reference/trunk_ref.h"
#include "tests/kernels/kernel_testing.h"

namespace lancet {
namespace {

class Nvfp4GoldenTest : public testing::TestWithParam<CpuIsa> {
 protected:
  void SetUp() override {
    auto file = SafetensorsFile::Open(LANCET_TEST_DATA "/golden/nvfp4.safetensors");
    ASSERT_TRUE(file.ok()) << file.status();
    file_ = *std::move(file);
  }
  TensorView Get(const std::string& name, DType dtype) {
    auto tensor = file_->Get(name);
    EXPECT_TRUE(tensor.ok()) << tensor.status();
    EXPECT_EQ(tensor->dtype, dtype) << name;
    return *tensor;
  }

  std::unique_ptr<SafetensorsFile> file_;
};

TEST_P(Nvfp4GoldenTest, ProductsAndExpandedWeightsAgree) {
  const auto ctx = MakeContext(GetParam());
  for (const std::string group : {"gauss", "edge", "gemm", "odd"}) {
    SCOPED_TRACE(group);
    const TensorView codes = Get(group + ".qweight", DType::kU8);
    const TensorView scales = Get(group + ".scales_bf16", DType::kBf16);
    const TensorView x = Get(group + ".x", DType::kBf16);
    const TensorView y = Get(group + ".y_bf16", DType::kF64);
    const int64_t rows = codes.shape[0];
    const int64_t cols = codes.shape[1] * 2;
    const int64_t tokens = x.shape[0];
    const Nvfp4MatrixView view = {rows, cols, codes.as<uint8_t>(), cols / 2, scales.as<bf16>(), cols / 16};
    auto packed = Nvfp4Weights::Pack(*ctx, {view});
    ASSERT_TRUE(packed.ok()) << packed.status();

    TestMatrix<bf16> identity(cols, cols);
    for (int64_t i = 0; i < cols; ++i) {
      for (int64_t j = 0; j < cols; ++j) identity.view().row(i)[j] = ToBf16(i == j ? 1.0f : 0.0f);
    }
    TestMatrix<float> expanded(cols, rows);
    ASSERT_TRUE(Nvfp4Gemm(*ctx, identity.view(), *packed, expanded.view()).ok());
    std::vector<float> dense;
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) dense.push_back(expanded.view().row(c)[r]);
    }
    if (file_->Contains(group + ".dequantised_bf16")) {  // all but "odd"
      const TensorView golden = Get(group + ".dequantised_bf16", DType::kF32);
      for (int64_t i = 0; i < rows * cols; ++i) {
        ASSERT_EQ(dense[i], golden.as<float>()[i]) << "element " << i;
      }
    }

    const ConstMatrixView<bf16> input(x.as<bf16>(), tokens, cols);
    TestMatrix<bf16> out(tokens, rows);
    ASSERT_TRUE(Nvfp4Gemm(*ctx, input, *packed, {}, out.view()).ok());
    const std::vector<double> magnitude = reference::LinearMagnitude(input, dense, rows);
    for (int64_t i = 0; i < tokens * rows; ++i) {
      const double exact = y.as<double>()[i];
      // The oracle's weights are rounded as ours: what differs is the order of sums, and one rounding.
      EXPECT_NEAR(ToFloat(out.data[i]), exact, HalfUlp(exact) + magnitude[i] * cols * 0x1p-23)
          << "element " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isa, Nvfp4GoldenTest, testing::ValuesIn(AvailableIsas()), IsaTestName);

}  // namespace
}  // namespace lancet
