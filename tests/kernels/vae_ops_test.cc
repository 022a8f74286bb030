#include "kernels/vae_ops.h"

#include <gtest/gtest.h>

#include <limits>

#include "kernels/spatial_attention.h"
#include "tests/kernels/vae_testing.h"

namespace lancet {
namespace {

constexpr CpuIsa kIsas[] = {CpuIsa::kPortable, CpuIsa::kAvx2, CpuIsa::kAvx512, CpuIsa::kAvx512Bf16};

template <typename T>
class VaeOpsTest : public testing::Test {};
using Types = testing::Types<float, bf16>;
TYPED_TEST_SUITE(VaeOpsTest, Types);

TYPED_TEST(VaeOpsTest, ChannelNormMatchesReference) {
  for (const CpuIsa isa : kIsas) {
    const auto ctx = TestContext(isa);
    for (const int64_t channels : {1, 8, 20, 48, 256}) {
      for (const bool silu : {false, true}) {
        TestMap<TypeParam> x = RandomMap<TypeParam>(9, 37, channels, 7);
        // A pixel of zeros (the floor of the norm), a tiny one, and a large one.
        for (int64_t c = 0; c < channels; ++c) {
          Assign(0.0f, &x.values[c]);
          Assign(1e-20f, &x.values[channels + c]);
          Assign(3e4f, &x.values[2 * channels + c]);
        }
        std::vector<float> gamma = RandomFloats(channels, 2.0f, 8);
        gamma[0] = 200.0f;  // drives SiLU to its ends
        const MapRef expected = ChannelNormRef(ToRef(x), gamma, silu);
        const auto activation = silu ? NormActivation::kSilu : NormActivation::kNone;
        ASSERT_TRUE(ChannelNorm<TypeParam>(*ctx, x.const_view(), gamma, activation, x.view()).ok());
        EXPECT_LT(WorstError(x.values, expected.values, 1e-2), kRounding<TypeParam>)
            << channels << " channels, " << CpuIsaName(isa);
      }
    }
  }
}

TYPED_TEST(VaeOpsTest, ChannelNormKeepsNan) {
  const auto ctx = TestContext(CpuIsa::kAvx512Bf16);
  TestMap<TypeParam> x = RandomMap<TypeParam>(1, 2, 32, 7);
  Assign(std::numeric_limits<float>::quiet_NaN(), &x.values[3]);
  const std::vector<float> gamma(32, 1.0f);
  ASSERT_TRUE(ChannelNorm<TypeParam>(*ctx, x.const_view(), gamma, NormActivation::kSilu, x.view()).ok());
  EXPECT_TRUE(std::isnan(AsFloat(x.values[3])));
  EXPECT_FALSE(std::isnan(AsFloat(x.values[32])));
}

TYPED_TEST(VaeOpsTest, UpsampleRowsGivesAnyRange) {
  const auto ctx = TestContext(CpuIsa::kAvx512Bf16);
  const TestMap<TypeParam> x = RandomMap<TypeParam>(5, 3, 6, 3);
  const MapRef whole = UpsampleRef(ToRef(x));
  for (const auto& [begin, count] : {std::pair{0, 10}, {1, 4}, {7, 3}}) {
    TestMap<TypeParam> y(count, 6, 6);
    ASSERT_TRUE(UpsampleRows<TypeParam>(*ctx, x.const_view(), begin, y.view()).ok());
    const std::vector<double> expected(whole.values.begin() + begin * 36,
                                       whole.values.begin() + (begin + count) * 36);
    EXPECT_EQ(WorstError(y.values, expected, 1.0), 0.0);
  }
  TestMap<TypeParam> y(4, 6, 6);
  EXPECT_EQ(UpsampleRows<TypeParam>(*ctx, x.const_view(), 7, y.view()).code(),
            absl::StatusCode::kInvalidArgument);
}

TYPED_TEST(VaeOpsTest, DupUpAddMatchesReference) {
  struct Case {
    int64_t in, out, frame_factor;
  };
  for (const CpuIsa isa : kIsas) {
    const auto ctx = TestContext(isa);
    for (const Case& c : {Case{16, 16, 2}, {32, 16, 1}, {16, 16, 1}, {64, 16, 1}, {8, 24, 2}, {128, 16, 2}}) {
      const TestMap<TypeParam> x = RandomMap<TypeParam>(4, 5, c.in, 3);
      TestMap<TypeParam> y = RandomMap<TypeParam>(8, 10, c.out, 4);
      MapRef expected = DupUpRef(ToRef(x), c.out, c.frame_factor);
      const MapRef before = ToRef(y);
      for (size_t i = 0; i < before.values.size(); ++i) expected.values[i] += before.values[i];
      ASSERT_TRUE(DupUpAdd<TypeParam>(*ctx, x.const_view(), c.frame_factor, y.view()).ok());
      EXPECT_LT(WorstError(y.values, expected.values, 1e-3), kRounding<TypeParam>) << c.in << " -> " << c.out;
    }
  }
  const auto ctx = TestContext(CpuIsa::kPortable);
  TestMap<TypeParam> x(2, 2, 48);
  TestMap<TypeParam> y(4, 4, 8);
  EXPECT_EQ(DupUpAdd<TypeParam>(*ctx, x.const_view(), 1, y.view()).code(),
            absl::StatusCode::kInvalidArgument);
}

TYPED_TEST(VaeOpsTest, UnpatchifyPutsColumnsFirst) {
  const auto ctx = TestContext(CpuIsa::kPortable);
  const TestMap<TypeParam> x = RandomMap<TypeParam>(3, 4, 12, 3);
  std::vector<float> planes(3 * 6 * 8);
  ASSERT_TRUE(Unpatchify<TypeParam>(*ctx, x.const_view(), absl::MakeSpan(planes)).ok());
  EXPECT_EQ(WorstError(planes, UnpatchifyRef(ToRef(x)), 1.0), 0.0);
  // The second of a pixel's twelve values lies below the first, the third beside it.
  EXPECT_EQ(planes[8], AsFloat(x.values[1]));
  EXPECT_EQ(planes[1], AsFloat(x.values[2]));
}

TYPED_TEST(VaeOpsTest, AvgDownMatchesReference) {
  struct Case {
    int64_t in, out, frame_factor;
  };
  const auto ctx = TestContext(CpuIsa::kAvx512Bf16);
  for (const Case& c : {Case{16, 16, 1}, {16, 32, 2}, {16, 16, 2}, {32, 16, 1}, {8, 32, 1}, {4, 32, 2}}) {
    const TestMap<TypeParam> x = RandomMap<TypeParam>(8, 10, c.in, 3);
    TestMap<TypeParam> y = RandomMap<TypeParam>(4, 5, c.out, 4);
    ASSERT_TRUE(AvgDown<TypeParam>(*ctx, x.const_view(), c.frame_factor, y.view()).ok());
    EXPECT_LT(WorstError(y.values, AvgDownRef(ToRef(x), c.out, c.frame_factor).values, 1e-2),
              kRounding<TypeParam>)
        << c.in << " -> " << c.out << ", " << c.frame_factor;
    if (c.out == 2 * c.in && c.frame_factor == 2) {
      for (size_t i = 0; i < y.values.size(); i += 2) EXPECT_EQ(AsFloat(y.values[i]), 0.0f);
    }
  }
  TestMap<TypeParam> x(4, 4, 8);
  TestMap<TypeParam> odd(2, 2, 24);
  EXPECT_EQ(AvgDown<TypeParam>(*ctx, x.const_view(), 1, odd.view()).code(),
            absl::StatusCode::kInvalidArgument);
  TestMap<TypeParam> small(1, 2, 8);
  EXPECT_EQ(AvgDown<TypeParam>(*ctx, x.const_view(), 1, small.view()).code(),
            absl::StatusCode::kInvalidArgument);
}

TYPED_TEST(VaeOpsTest, AddMapAdds) {
  const auto ctx = TestContext(CpuIsa::kAvx512Bf16);
  const TestMap<TypeParam> x = RandomMap<TypeParam>(3, 5, 7, 3);
  TestMap<TypeParam> y = RandomMap<TypeParam>(3, 5, 7, 4);
  MapRef expected = ToRef(y);
  for (size_t i = 0; i < expected.values.size(); ++i) expected.values[i] += AsFloat(x.values[i]);
  ASSERT_TRUE(AddMap<TypeParam>(*ctx, x.const_view(), y.view()).ok());
  EXPECT_LT(WorstError(y.values, expected.values, 1e-3), kRounding<TypeParam>);
  TestMap<TypeParam> other(3, 5, 8);
  EXPECT_EQ(AddMap<TypeParam>(*ctx, x.const_view(), other.view()).code(), absl::StatusCode::kInvalidArgument);
}

TYPED_TEST(VaeOpsTest, PatchifyUndoesUnpatchify) {
  const auto ctx = TestContext(CpuIsa::kPortable);
  const TestMap<TypeParam> x = RandomMap<TypeParam>(3, 4, 12, 3);
  std::vector<float> planes(3 * 6 * 8);
  ASSERT_TRUE(Unpatchify<TypeParam>(*ctx, x.const_view(), absl::MakeSpan(planes)).ok());
  TestMap<TypeParam> y(3, 4, 12);
  ASSERT_TRUE(Patchify<TypeParam>(*ctx, planes, y.view()).ok());
  EXPECT_EQ(WorstError(y.values, ToRef(x).values, 1.0), 0.0);
  planes.pop_back();
  EXPECT_EQ(Patchify<TypeParam>(*ctx, planes, y.view()).code(), absl::StatusCode::kInvalidArgument);
}

TEST(ImageToPixelsTest, MapsBytesToTheUnitRange) {
  const RgbImage image{2, 1, {0, 255, 51, 255, 0, 204}};
  const auto planes = ImageToPixels(image);
  ASSERT_TRUE(planes.ok());
  const float expected[] = {-1.0f, 1.0f, 1.0f, -1.0f, -0.6f, 0.6f};
  for (int i = 0; i < 6; ++i) EXPECT_NEAR((*planes)[i], expected[i], 1e-6);
  EXPECT_EQ(*PixelsToImage(*planes, 1, 2), image);
  EXPECT_EQ(ImageToPixels({2, 2, {0, 0, 0}}).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(ImageToPixelsTest, PlanesAreExact) {
  // A pixel's red is its column, green its row, blue constant.
  RgbImage image{16, 32, {}};
  for (int y = 0; y < 32; ++y) {
    for (int x = 0; x < 16; ++x) {
      for (const int level : {x, y, 255}) image.pixels.push_back(static_cast<uint8_t>(level));
    }
  }
  const auto planes = ImageToPixels(image);
  ASSERT_TRUE(planes.ok());
  ASSERT_EQ(planes->size(), 3u * 16 * 32);
  EXPECT_EQ((*planes)[0], -1.0f);
  EXPECT_EQ((*planes)[15], (15.0f / 255.0f - 0.5f) / 0.5f);
  EXPECT_EQ((*planes)[16 * 32 + 16 * 31 + 3], (31.0f / 255.0f - 0.5f) / 0.5f);
  EXPECT_EQ(planes->back(), 1.0f);
}

TEST(PixelsToImageTest, RoundsHalvesToEvenAndClamps) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  // (x / 2 + 1/2) * 255: 0, 255, 127.5 -> 128 (even), clamped ends, NaN as 0.
  const std::vector<float> planes = {-1.0f, 1.0f, 0.0f, -7.0f, 9.0f, nan};
  const auto image = PixelsToImage(planes, 1, 2);
  ASSERT_TRUE(image.ok());
  EXPECT_EQ(image->width, 2);
  EXPECT_EQ(image->height, 1);
  EXPECT_EQ(image->pixels, (std::vector<uint8_t>{0, 128, 255, 255, 0, 128}));
  EXPECT_EQ(PixelsToImage(planes, 2, 2).status().code(), absl::StatusCode::kInvalidArgument);
}

template <typename T>
void ExpectAttentionMatches(const KernelContext& ctx) {
  auto attention = SpatialAttention::Create(ctx, 24, 300);
  ASSERT_TRUE(attention.ok()) << attention.status();
  // One chunk and less, several with and without a rest; the first size again.
  for (const auto& [height, width] : {std::pair{1, 1}, {3, 4}, {8, 16}, {16, 16}, {15, 19}, {3, 4}}) {
    TestMap<T> qkv = RandomMap<T>(height, width, 72, 5);
    for (T& v : qkv.values) Assign(2.0f * AsFloat(v), &v);  // sharper than uniform
    TestMap<T> out(height, width, 24);
    const absl::Status status = attention->Forward(ctx, qkv.const_view(), out.view());
    ASSERT_TRUE(status.ok()) << status;
    // Probabilities are rounded as well as the result.
    EXPECT_LT(WorstError(out.values, SpatialAttentionRef(ToRef(qkv)).values, 1.0), 2 * kRounding<T>)
        << height << " x " << width;
  }
  TestMap<T> qkv(16, 19, 72);
  TestMap<T> out(16, 19, 24);
  EXPECT_EQ(attention->Forward(ctx, qkv.const_view(), out.view()).code(), absl::StatusCode::kInvalidArgument);
}

TEST(SpatialAttentionTest, MatchesReferenceInTheTypeOfTheMachine) {
  const auto ctx = TestContext(CpuIsa::kAvx512Bf16);
  if (ActivationType(*ctx) == DType::kBf16) {
    ExpectAttentionMatches<bf16>(*ctx);
  } else {
    ExpectAttentionMatches<float>(*ctx);
  }
}

TEST(SpatialAttentionTest, MatchesReferenceInF32) {
  ExpectAttentionMatches<float>(*TestContext(CpuIsa::kPortable));
}

}  // namespace
}  // namespace lancet
