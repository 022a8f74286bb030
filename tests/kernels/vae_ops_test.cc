#include "kernels/vae_ops.h"

#include <gtest/gtest.h>

#include <limits>

#include "kernels/spatial_attention.h"
#include "tests/kernels/vae_testing.h"

namespace lancet {
namespace {

constexpr CpuIsa kIsas[] = {CpuIsa::kPortable, CpuIsa::kAvx2, CpuIsa::kAvx512, CpuIsa::kAvx512Bf16};

TEST(VaeOpsTest, ChannelNormMatchesReference) {
  for (const CpuIsa isa : kIsas) {
    const auto ctx = TestContext(isa);
    for (const int64_t channels : {1, 8, 20, 48, 256}) {
      for (const bool silu : {false, true}) {
        TestMap x = RandomMap(9, 37, channels, 7);
        // A pixel of zeros (the floor of the norm), a tiny one, and a large one.
        for (int64_t c = 0; c < channels; ++c) {
          x.values[c] = ToBf16(0.0f);
          x.values[channels + c] = ToBf16(1e-20f);
          x.values[2 * channels + c] = ToBf16(3e4f);
        }
        std::vector<float> gamma = RandomFloats(channels, 2.0f, 8);
        gamma[0] = 200.0f;  // drives SiLU to its ends
        const MapRef expected = ChannelNormRef(ToRef(x), gamma, silu);
        const auto activation = silu ? NormActivation::kSilu : NormActivation::kNone;
        ASSERT_TRUE(ChannelNorm(*ctx, x.const_view(), gamma, activation, x.view()).ok());
        EXPECT_LT(WorstError(x.values, expected.values, 1e-2), kRounding)
            << channels << " channels, " << CpuIsaName(isa);
      }
    }
  }
}

TEST(VaeOpsTest, ChannelNormKeepsNan) {
  const auto ctx = TestContext(CpuIsa::kAvx512Bf16);
  TestMap x = RandomMap(1, 2, 32, 7);
  x.values[3] = ToBf16(std::numeric_limits<float>::quiet_NaN());
  const std::vector<float> gamma(32, 1.0f);
  ASSERT_TRUE(ChannelNorm(*ctx, x.const_view(), gamma, NormActivation::kSilu, x.view()).ok());
  EXPECT_TRUE(std::isnan(ToFloat(x.values[3])));
  EXPECT_FALSE(std::isnan(ToFloat(x.values[32])));
}

TEST(VaeOpsTest, UpsampleRowsGivesAnyRange) {
  const auto ctx = TestContext(CpuIsa::kAvx512Bf16);
  const TestMap x = RandomMap(5, 3, 6, 3);
  const MapRef whole = UpsampleRef(ToRef(x));
  for (const auto& [begin, count] : {std::pair{0, 10}, {1, 4}, {7, 3}}) {
    TestMap y(count, 6, 6);
    ASSERT_TRUE(UpsampleRows(*ctx, x.const_view(), begin, y.view()).ok());
    const std::vector<double> expected(whole.values.begin() + begin * 36,
                                       whole.values.begin() + (begin + count) * 36);
    EXPECT_EQ(WorstError(y.values, expected, 1.0), 0.0);
  }
  TestMap y(4, 6, 6);
  EXPECT_EQ(UpsampleRows(*ctx, x.const_view(), 7, y.view()).code(), absl::StatusCode::kInvalidArgument);
}

TEST(VaeOpsTest, DupUpAddMatchesReference) {
  struct Case {
    int64_t in, out, frame_factor;
  };
  for (const CpuIsa isa : kIsas) {
    const auto ctx = TestContext(isa);
    for (const Case& c : {Case{16, 16, 2}, {32, 16, 1}, {16, 16, 1}, {64, 16, 1}, {8, 24, 2}, {128, 16, 2}}) {
      const TestMap x = RandomMap(4, 5, c.in, 3);
      TestMap y = RandomMap(8, 10, c.out, 4);
      MapRef expected = DupUpRef(ToRef(x), c.out, c.frame_factor);
      const MapRef before = ToRef(y);
      for (size_t i = 0; i < before.values.size(); ++i) expected.values[i] += before.values[i];
      ASSERT_TRUE(DupUpAdd(*ctx, x.const_view(), c.frame_factor, y.view()).ok());
      EXPECT_LT(WorstError(y.values, expected.values, 1e-3), kRounding) << c.in << " -> " << c.out;
    }
  }
  const auto ctx = TestContext(CpuIsa::kPortable);
  TestMap x(2, 2, 48);
  TestMap y(4, 4, 8);
  EXPECT_EQ(DupUpAdd(*ctx, x.const_view(), 1, y.view()).code(), absl::StatusCode::kInvalidArgument);
}

TEST(VaeOpsTest, UnpatchifyPutsColumnsFirst) {
  const auto ctx = TestContext(CpuIsa::kPortable);
  const TestMap x = RandomMap(3, 4, 12, 3);
  std::vector<float> planes(3 * 6 * 8);
  ASSERT_TRUE(Unpatchify(*ctx, x.const_view(), absl::MakeSpan(planes)).ok());
  EXPECT_TRUE(std::equal(planes.begin(), planes.end(), UnpatchifyRef(ToRef(x)).begin()));
  // The second of a pixel's twelve values lies below the first, the third beside it.
  EXPECT_EQ(planes[8], ToFloat(x.values[1]));
  EXPECT_EQ(planes[1], ToFloat(x.values[2]));
}

TEST(VaeOpsTest, AvgDownMatchesReference) {
  struct Case {
    int64_t in, out, frame_factor;
  };
  const auto ctx = TestContext(CpuIsa::kAvx512Bf16);
  for (const Case& c : {Case{16, 16, 1}, {16, 32, 2}, {16, 16, 2}, {32, 16, 1}, {8, 32, 1}, {4, 32, 2}}) {
    const TestMap x = RandomMap(8, 10, c.in, 3);
    TestMap y = RandomMap(4, 5, c.out, 4);
    ASSERT_TRUE(AvgDown(*ctx, x.const_view(), c.frame_factor, y.view()).ok());
    EXPECT_LT(WorstError(y.values, AvgDownRef(ToRef(x), c.out, c.frame_factor).values, 1e-2), kRounding)
        << c.in << " -> " << c.out << ", " << c.frame_factor;
    if (c.out == 2 * c.in && c.frame_factor == 2) {
      for (size_t i = 0; i < y.values.size(); i += 2) EXPECT_EQ(ToFloat(y.values[i]), 0.0f);
    }
  }
  TestMap x(4, 4, 8);
  TestMap odd(2, 2, 24);
  EXPECT_EQ(AvgDown(*ctx, x.const_view(), 1, odd.view()).code(), absl::StatusCode::kInvalidArgument);
  TestMap small(1, 2, 8);
  EXPECT_EQ(AvgDown(*ctx, x.const_view(), 1, small.view()).code(), absl::StatusCode::kInvalidArgument);
}

TEST(VaeOpsTest, AddMapAdds) {
  const auto ctx = TestContext(CpuIsa::kAvx512Bf16);
  const TestMap x = RandomMap(3, 5, 7, 3);
  TestMap y = RandomMap(3, 5, 7, 4);
  MapRef expected = ToRef(y);
  for (size_t i = 0; i < expected.values.size(); ++i) expected.values[i] += ToFloat(x.values[i]);
  ASSERT_TRUE(AddMap(*ctx, x.const_view(), y.view()).ok());
  EXPECT_LT(WorstError(y.values, expected.values, 1e-3), kRounding);
  TestMap other(3, 5, 8);
  EXPECT_EQ(AddMap(*ctx, x.const_view(), other.view()).code(), absl::StatusCode::kInvalidArgument);
}

TEST(VaeOpsTest, PatchifyUndoesUnpatchify) {
  const auto ctx = TestContext(CpuIsa::kPortable);
  const TestMap x = RandomMap(3, 4, 12, 3);
  std::vector<float> planes(3 * 6 * 8);
  ASSERT_TRUE(Unpatchify(*ctx, x.const_view(), absl::MakeSpan(planes)).ok());
  TestMap y(3, 4, 12);
  ASSERT_TRUE(Patchify(*ctx, planes, y.view()).ok());
  EXPECT_EQ(WorstError(y.values, ToRef(x).values, 1.0), 0.0);
  planes.pop_back();
  EXPECT_EQ(Patchify(*ctx, planes, y.view()).code(), absl::StatusCode::kInvalidArgument);
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

void ExpectAttentionMatches(const KernelContext& ctx) {
  auto attention = SpatialAttention::Create(ctx, 24, 300);
  ASSERT_TRUE(attention.ok()) << attention.status();
  // One chunk and less, several with and without a rest; the first size again.
  for (const auto& [height, width] : {std::pair{1, 1}, {3, 4}, {8, 16}, {16, 16}, {15, 19}, {3, 4}}) {
    TestMap qkv = RandomMap(height, width, 72, 5);
    for (bf16& v : qkv.values) v = ToBf16(2.0f * ToFloat(v));  // sharper than uniform
    TestMap out(height, width, 24);
    const absl::Status status = attention->Forward(ctx, qkv.const_view(), out.view());
    ASSERT_TRUE(status.ok()) << status;
    // Probabilities are rounded as well as the result.
    EXPECT_LT(WorstError(out.values, SpatialAttentionRef(ToRef(qkv)).values, 1.0), 2 * kRounding)
        << height << " x " << width;
  }
  TestMap qkv(16, 19, 72);
  TestMap out(16, 19, 24);
  EXPECT_EQ(attention->Forward(ctx, qkv.const_view(), out.view()).code(), absl::StatusCode::kInvalidArgument);
}

// Products of f32 and, where the machine has them, of bf16.
TEST(SpatialAttentionTest, MatchesReference) {
  for (const CpuIsa isa : kIsas) ExpectAttentionMatches(*TestContext(isa));
}

}  // namespace
}  // namespace lancet
