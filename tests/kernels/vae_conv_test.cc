#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "kernels/conv.h"
#include "tests/kernels/vae_testing.h"

namespace lancet {
namespace {

using ::testing::HasSubstr;

struct Case {
  ConvShape shape;
  int64_t height;
  int64_t width;
  ConvPadding padding;
  bool accumulate;
};

const Case kCases[] = {
    {{16, 16, 3, 1}, 5, 7, {1, 1, 1, 1}, false},  {{16, 16, 3, 1}, 5, 7, {1, 1, 1, 1}, true},
    {{12, 8, 3, 1}, 6, 9, {0, 1, 0, 1}, false},   {{20, 24, 3, 1}, 6, 5, {0, 1, 0, 1}, true},
    {{48, 48, 1, 1}, 4, 4, {0, 0, 0, 0}, false},  {{96, 32, 1, 1}, 1, 1, {0, 0, 0, 0}, false},
    {{32, 64, 1, 1}, 3, 17, {0, 0, 0, 0}, true},  {{24, 20, 3, 2}, 8, 10, {0, 0, 1, 1}, false},
    {{20, 24, 3, 2}, 8, 10, {0, 0, 1, 1}, true},  {{16, 16, 3, 2}, 2, 2, {0, 0, 1, 1}, true},
    {{33, 7, 3, 1}, 40, 3, {1, 1, 1, 1}, false},  {{3, 5, 3, 2}, 9, 9, {1, 1, 1, 1}, false},
    {{64, 128, 3, 1}, 3, 130, {1, 1, 1, 1}, true}};

void ExpectMatchesReference(const KernelContext& ctx) {
  uint32_t seed = 1;
  for (const Case& c : kCases) {
    SCOPED_TRACE(testing::Message() << c.shape.in_channels << " -> " << c.shape.out_channels << ", kernel "
                                    << c.shape.kernel << ", stride " << c.shape.stride << " on " << c.height
                                    << " x " << c.width);
    const int64_t fan_in = c.shape.in_channels * c.shape.kernel * c.shape.kernel;
    const std::vector<float> weight =
        RandomFloats(c.shape.out_channels * fan_in, 1.0f / std::sqrt(static_cast<float>(fan_in)), ++seed);
    const std::vector<float> bias = RandomFloats(c.shape.out_channels, 0.1f, ++seed);
    auto conv = Conv2d::Create(ctx, c.shape, weight, bias);
    ASSERT_TRUE(conv.ok()) << conv.status();
    const TestMap x = RandomMap(c.height, c.width, c.shape.in_channels, ++seed);
    MapRef expected = ConvRef(ToRef(x), c.shape, weight, bias, c.padding);
    TestMap y = RandomMap(expected.height, expected.width, expected.channels, ++seed);
    if (c.accumulate) {
      const MapRef before = ToRef(y);
      for (size_t i = 0; i < before.values.size(); ++i) expected.values[i] += before.values[i];
    }
    const absl::Status status = conv->Forward(x.const_view(), c.padding, c.accumulate, y.view());
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_LT(WorstError(y.values, expected.values, 1.0), kRounding);
  }
}

// Rows are shared out over the threads, with and without padding, at strides 1 and 2.
void ExpectSameOnAnyThreads(CpuIsa isa) {
  for (const Case& c :
       {Case{{32, 32, 3, 1}, 40, 24, {1, 1, 1, 1}, false}, Case{{32, 32, 3, 1}, 41, 24, {0, 1, 0, 1}, true},
        Case{{32, 48, 3, 2}, 40, 24, {0, 0, 1, 1}, false},
        Case{{64, 96, 1, 1}, 37, 24, {0, 0, 0, 0}, true}}) {
    const int64_t fan_in = c.shape.in_channels * c.shape.kernel * c.shape.kernel;
    const std::vector<float> weight = RandomFloats(c.shape.out_channels * fan_in, 0.1f, 1);
    const std::vector<float> bias = RandomFloats(c.shape.out_channels, 0.1f, 2);
    const TestMap x = RandomMap(c.height, c.width, c.shape.in_channels, 3);
    const MapRef shape = ConvRef(ToRef(x), c.shape, weight, bias, c.padding);
    std::vector<bf16> expected;
    for (const int threads : {1, 2, 5}) {
      const auto ctx = TestContext(isa, threads);
      auto conv = Conv2d::Create(*ctx, c.shape, weight, bias);
      ASSERT_TRUE(conv.ok()) << conv.status();
      TestMap y = RandomMap(shape.height, shape.width, shape.channels, 4);
      const absl::Status status = conv->Forward(x.const_view(), c.padding, c.accumulate, y.view());
      ASSERT_TRUE(status.ok()) << status;
      if (threads == 1) expected = y.values;
      EXPECT_EQ(std::memcmp(y.values.data(), expected.data(), expected.size() * sizeof(bf16)), 0)
          << threads << " threads, stride " << c.shape.stride << ", kernel " << c.shape.kernel;
    }
  }
}

// Products of f32 everywhere, and of bf16 where the machine has them.
constexpr CpuIsa kIsas[] = {CpuIsa::kPortable, CpuIsa::kAvx2, CpuIsa::kAvx512Bf16};

TEST(Conv2dTest, ResultsDoNotDependOnThreads) {
  for (const CpuIsa isa : kIsas) ExpectSameOnAnyThreads(isa);
}

TEST(Conv2dTest, MatchesReference) {
  for (const CpuIsa isa : kIsas) ExpectMatchesReference(*TestContext(isa));
}

// A map of more than is widened at a time: runs of rows, whose weights are read again and again.
TEST(Conv2dTest, MatchesReferenceOnLargeMaps) {
  for (const Case& c : {Case{{8, 16, 3, 1}, 330, 1024, {1, 1, 1, 1}, true},
                        Case{{8, 16, 3, 2}, 330, 1024, {0, 0, 1, 1}, false}}) {
    const std::vector<float> weight = RandomFloats(8 * 16 * 9, 0.08f, 1);
    const std::vector<float> bias = RandomFloats(8, 0.1f, 2);
    const TestMap x = RandomMap(c.height, c.width, 16, 3);
    MapRef expected = ConvRef(ToRef(x), c.shape, weight, bias, c.padding);
    const TestMap before = RandomMap(expected.height, expected.width, 8, 4);
    const MapRef added = ToRef(before);
    if (c.accumulate) {
      for (size_t i = 0; i < added.values.size(); ++i) expected.values[i] += added.values[i];
    }
    for (const CpuIsa isa : kIsas) {
      const auto ctx = TestContext(isa);
      auto conv = Conv2d::Create(*ctx, c.shape, weight, bias);
      ASSERT_TRUE(conv.ok()) << conv.status();
      TestMap y = before;
      const absl::Status status = conv->Forward(x.const_view(), c.padding, c.accumulate, y.view());
      ASSERT_TRUE(status.ok()) << status;
      EXPECT_LT(WorstError(y.values, expected.values, 1.0), kRounding) << CpuIsaName(isa);
    }
  }
}

// More sizes than primitives are kept, each seen twice, and layouts that differ between sizes.
TEST(Conv2dTest, ServesManySizesInTurn) {
  const auto ctx = TestContext(CpuIsa::kPortable);
  const ConvShape shape{1024, 64, 1, 1};
  const std::vector<float> weight = RandomFloats(1024 * 64, 0.125f, 1);
  const std::vector<float> bias = RandomFloats(1024, 0.1f, 2);
  auto conv = Conv2d::Create(*ctx, shape, weight, bias);
  ASSERT_TRUE(conv.ok()) << conv.status();
  for (int round = 0; round < 2; ++round) {
    for (int64_t size = 1; size <= 12; ++size) {
      const TestMap x = RandomMap(size, 3, 64, 10);
      TestMap y(size, 3, 1024);
      ASSERT_TRUE(conv->Forward(x.const_view(), {}, false, y.view()).ok());
      EXPECT_LT(WorstError(y.values, ConvRef(ToRef(x), shape, weight, bias, {}).values, 1.0), kRounding);
    }
  }
}

TEST(Conv2dTest, RefusesWhatDoesNotFit) {
  const auto ctx = TestContext(CpuIsa::kPortable);
  const ConvShape shape{8, 4, 3, 1};
  const std::vector<float> weight(8 * 4 * 9);
  const std::vector<float> bias(8);
  EXPECT_THAT(std::string(Conv2d::Create(*ctx, {8, 4, 5, 1}, weight, bias).status().message()),
              HasSubstr("kernel 5"));
  EXPECT_THAT(std::string(Conv2d::Create(*ctx, {8, 4, 1, 1}, weight, bias).status().message()),
              HasSubstr("288 weights"));
  auto conv = Conv2d::Create(*ctx, shape, weight, bias);
  ASSERT_TRUE(conv.ok());
  TestMap x(5, 5, 4);
  TestMap y(5, 5, 8);
  TestMap narrow(5, 5, 7);
  EXPECT_TRUE(conv->Forward(x.const_view(), {1, 1, 1, 1}, false, y.view()).ok());
  for (const absl::Status& status : {conv->Forward(x.const_view(), {0, 1, 1, 1}, false, y.view()),
                                     conv->Forward(x.const_view(), {1, 1, 1, 1}, false, narrow.view()),
                                     conv->Forward(x.const_view(), {3, 1, -1, 1}, false, y.view())}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr("4 -> 8 channels"));
  }
}

}  // namespace
}  // namespace lancet
