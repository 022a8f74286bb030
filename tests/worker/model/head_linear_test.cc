#include "worker/model/head_linear.h"

#include "tests/kernels/kernel_testing.h"
#include "tests/testing/status_matchers.h"

namespace lancet {
namespace {

TEST(HeadLinearTest, MultipliesInTheFormItIsKeptIn) {
  const auto ctx = MakeContext(DetectCpuIsa());
  const TestMatrix<bf16> weight = RandomMatrix(50, 64, 0, 1);
  const TestMatrix<bf16> x = RandomMatrix(3, 64, 0, 2);
  TestMatrix<bf16> expected(3, 50);
  TestMatrix<bf16> y(3, 50);
  const auto bf16_head = HeadLinear::Create(*ctx, weight.view(), HeadForm::kBf16);
  ASSERT_THAT(bf16_head, IsOk());
  EXPECT_EQ(bf16_head->rows(), 50);
  ASSERT_THAT(Bf16Gemm(*ctx, x.view(), *Bf16Weights::Pack(*ctx, weight.view()), {}, expected.view()), IsOk());
  ASSERT_THAT(bf16_head->Run(*ctx, x.view(), y.view()), IsOk());
  EXPECT_TRUE(SameBits(y.data.data(), expected.data.data(), 3 * 50));

  const auto int8_head = HeadLinear::Create(*ctx, weight.view(), HeadForm::kInt8);
  ASSERT_THAT(int8_head, IsOk());
  EXPECT_EQ(int8_head->rows(), 50);
  ASSERT_THAT(ByteGemm(*ctx, x.view(), *ByteWeights::Pack(*ctx, weight.view()), expected.view()), IsOk());
  ASSERT_THAT(int8_head->Run(*ctx, x.view(), y.view()), IsOk());
  EXPECT_TRUE(SameBits(y.data.data(), expected.data.data(), 3 * 50));
}

}  // namespace
}  // namespace lancet
