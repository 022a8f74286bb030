#include "worker/model/vae/strip_conv.h"

#include <gtest/gtest.h>

#include <memory>

#include "common/noise.h"
#include "kernels/kernel_context.h"

namespace lancet {
namespace {

// A map whose strips hold thirty rows: one strip, two even ones, and several with a shorter last one.
TEST(StripConvTest, EqualsTheConvolutionOfTheWholeMap) {
  auto ctx = KernelContext::CreateCpu({.threads = 2, .max_isa = CpuIsa::kPortable});
  ASSERT_TRUE(ctx.ok());
  (*ctx)->BindCallingThread();
  constexpr int64_t kIn = 64;
  constexpr int64_t kOut = 8;
  constexpr int64_t kWidth = 1024;
  std::vector<float> weight(kOut * kIn * 9);
  FillNormalNoise(1, static_cast<int64_t>(weight.size()), 0, absl::MakeSpan(weight));
  const std::vector<float> bias(kOut, 0.5f);
  auto conv = Conv2d::Create(**ctx, {kOut, kIn, 3, 1}, weight, bias);
  ASSERT_TRUE(conv.ok()) << conv.status();
  StripConv strips;
  for (const int64_t height : {1, 2, 30, 31, 93}) {
    std::vector<float> noise(height * kWidth * kIn);
    FillNormalNoise(2, static_cast<int64_t>(noise.size()), 0, absl::MakeSpan(noise));
    std::vector<bf16> x;
    for (const float value : noise) x.push_back(ToBf16(value));
    const MapView<bf16> map(x.data(), height, kWidth, kIn);
    std::vector<bf16> expected(height * kWidth * kOut, ToBf16(1.0f));
    std::vector<bf16> actual = expected;
    ASSERT_TRUE(conv->Forward(map, {1, 1, 1, 1}, true, {expected.data(), height, kWidth, kOut}).ok());
    int64_t next_row = 0;
    const absl::Status status = strips.Run(*conv,
                                           [&](int64_t begin, MapView<bf16> rows) {
                                             EXPECT_EQ(begin, next_row) << "every row once, top down";
                                             next_row += rows.height;
                                             std::copy_n(map.row(begin), rows.elements(), rows.data);
                                             return absl::OkStatus();
                                           },
                                           true, {actual.data(), height, kWidth, kOut});
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_EQ(next_row, height);
    double worst = 0;
    for (size_t i = 0; i < actual.size(); ++i) {
      const double off = std::abs(double{ToFloat(actual[i])} - ToFloat(expected[i]));
      worst = std::max(worst, off / (24 + std::abs(ToFloat(expected[i]))));
    }
    // The order within a sum of 576 products of size 1 may depend on the height, and with it the rounding: 24
    // is what such a sum is by itself.
    EXPECT_LT(worst, 0.008) << height;
  }
}

}  // namespace
}  // namespace lancet
