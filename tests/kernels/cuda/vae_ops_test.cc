// The autoencoder's steps and convolutions against plain loops in double.

#include "kernels/cuda/vae_ops.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/cuda/conv2d.h"
#include "kernels/cuda/vae_encoder_ops.h"
#include "kernels/reference/vae_ref.h"
#include "kernels/vae_ops.h"
#include "tests/kernels/cuda/cuda_testing.h"

namespace lancet {
namespace {

// One rounding to bf16 is at most 2^-9 of the value; f32 sums before it cost less.
constexpr double kOneRounding = 0.0022;

std::vector<float> RandomFloats(int64_t count, uint32_t seed, float low = -1.0f, float high = 1.0f) {
  TestRandom random(seed);
  std::vector<float> values(count);
  for (float& v : values) v = RoundToBf16(random.Uniform(low, high));
  return values;
}

std::vector<bf16> ToBf16s(const std::vector<float>& values) {
  std::vector<bf16> rounded;
  for (const float v : values) rounded.push_back(ToBf16(v));
  return rounded;
}

class CudaVaeOpsTest : public CudaTest {
 protected:
  // A random map, on the device and in double.
  struct Map {
    MapRef ref;
    DeviceArray<bf16> device;
  };
  Map RandomMap(int64_t height, int64_t width, int64_t channels, uint32_t seed) {
    const std::vector<float> values = RandomFloats(height * width * channels, seed);
    Map map{MapRef(height, width, channels), ToDevice(ToBf16s(values))};
    std::copy(values.begin(), values.end(), map.ref.values.begin());
    return map;
  }
};

TEST_F(CudaVaeOpsTest, ConvolutionsFollowTheirDefinition) {
  struct Case {
    int64_t kernel, stride, in, out, height, width;
    bool add;
  };
  for (const Case& c :
       {Case{3, 1, 16, 8, 5, 7, false}, Case{3, 1, 32, 48, 16, 24, true}, Case{1, 1, 32, 96, 9, 3, false},
        Case{1, 1, 24, 24, 1, 1, true}, Case{3, 2, 16, 16, 9, 13, false}, Case{3, 2, 32, 64, 33, 17, true},
        Case{3, 2, 8, 8, 3, 3, true}, Case{3, 1, 160, 160, 12, 20, true}}) {
    const Map x = RandomMap(c.height, c.width, c.in, 1);
    const float limit = 1.0f / std::sqrt(static_cast<float>(c.kernel * c.kernel * c.in));
    const auto weight = RandomFloats(c.out * c.in * c.kernel * c.kernel, 2, -limit, limit);
    const auto bias = RandomFloats(c.out, 3, -0.1f, 0.1f);
    auto conv = CudaConv2d::Create(*ctx_, {c.out, c.in, c.kernel, c.stride}, weight, bias);
    ASSERT_TRUE(conv.ok()) << conv.status();
    const int64_t pad = c.stride == 1 ? c.kernel / 2 : 0;
    MapRef expected = ConvRef(x.ref, {c.out, c.in, c.kernel, c.stride}, weight, bias, {pad, pad, pad, pad});
    const Map addend = RandomMap(expected.height, expected.width, c.out, 4);
    const auto y = Poisoned<bf16>(expected.values.size());
    // Twice: the second time with the plan of the first.
    for (int run = 0; run < 2; ++run) {
      const absl::Status status =
          conv->Forward(x.device.data(), c.height, c.width, c.add ? addend.device.data() : nullptr, y.data());
      ASSERT_TRUE(status.ok()) << status;
    }
    if (c.add) {
      for (size_t i = 0; i < expected.values.size(); ++i) expected.values[i] += addend.ref.values[i];
    }
    EXPECT_LT(RelativeError(ToHost(y), expected.values), 3e-3)
        << "kernel " << c.kernel << " stride " << c.stride << " " << c.in << " to " << c.out;
  }
}

TEST_F(CudaVaeOpsTest, ConvolutionAddsToItsOwnOutput) {
  const Map x = RandomMap(7, 5, 16, 5);
  const Map before = RandomMap(3, 2, 16, 6);
  const auto weight = RandomFloats(16 * 16 * 9, 7, -0.1f, 0.1f);
  const auto bias = RandomFloats(16, 8);
  auto conv = CudaConv2d::Create(*ctx_, {16, 16, 3, 2}, weight, bias);
  ASSERT_TRUE(conv.ok()) << conv.status();
  MapRef expected = ConvRef(x.ref, {16, 16, 3, 2}, weight, bias, {});
  for (size_t i = 0; i < expected.values.size(); ++i) expected.values[i] += before.ref.values[i];
  ASSERT_TRUE(conv->Forward(x.device.data(), 7, 5, before.device.data(), before.device.data()).ok());
  EXPECT_LT(RelativeError(ToHost(before.device), expected.values), 3e-3);
}

TEST_F(CudaVaeOpsTest, ConvolutionsOfMoreSizesThanPlansAreKept) {
  const auto weight = RandomFloats(8 * 8 * 9, 9, -0.1f, 0.1f);
  const auto bias = RandomFloats(8, 10);
  auto conv = CudaConv2d::Create(*ctx_, {8, 8, 3, 1}, weight, bias);
  ASSERT_TRUE(conv.ok()) << conv.status();
  for (int64_t width = 1; width <= 40; ++width) {
    const Map x = RandomMap(3, width, 8, static_cast<uint32_t>(width));
    const auto y = Poisoned<bf16>(3 * width * 8);
    ASSERT_TRUE(conv->Forward(x.device.data(), 3, width, nullptr, y.data()).ok());
    const MapRef expected = ConvRef(x.ref, {8, 8, 3, 1}, weight, bias, {1, 1, 1, 1});
    EXPECT_LT(RelativeError(ToHost(y), expected.values), 3e-3) << width;
  }
}

TEST_F(CudaVaeOpsTest, ConvolutionRefusesOtherShapes) {
  const auto wrong = [&](const CudaConvShape& shape, size_t weights) {
    return CudaConv2d::Create(*ctx_, shape, std::vector<float>(weights), std::vector<float>(8))
        .status()
        .code();
  };
  EXPECT_EQ(wrong({8, 8, 5, 1}, 8 * 8 * 25), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(wrong({8, 8, 3, 3}, 8 * 8 * 9), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(wrong({8, 8, 3, 1}, 8 * 8), absl::StatusCode::kInvalidArgument);
}

TEST_F(CudaVaeOpsTest, NormsFollowTheirDefinition) {
  for (const int64_t channels : {8, 160, 640, 1024}) {
    for (const bool silu : {false, true}) {
      const Map x = RandomMap(3, 7, channels, 11);
      const std::vector<float> gamma = RandomFloats(channels, 12, 0.5f, 1.5f);
      const auto device_gamma = ToDevice(gamma);
      const auto y = Poisoned<bf16>(21 * channels);
      ASSERT_EQ(
          cuda::ChannelNorm(x.device.data(), device_gamma.data(), 21, channels, silu, y.data(), stream()),
          cudaSuccess);
      EXPECT_LT(RelativeError(ToHost(y), ChannelNormRef(x.ref, gamma, silu).values), kOneRounding);
    }
  }
}

TEST_F(CudaVaeOpsTest, EnlargingAndItsShortcut) {
  const Map x = RandomMap(5, 3, 64, 13);
  const auto enlarged = Poisoned<bf16>(4 * 15 * 64);
  ASSERT_EQ(cuda::Upsample(x.device.data(), 5, 3, 64, enlarged.data(), stream()), cudaSuccess);
  EXPECT_EQ(RelativeError(ToHost(enlarged), UpsampleRef(x.ref).values), 0);
  for (const auto& [out, factor] : {std::pair<int64_t, int64_t>{64, 2}, {32, 1}, {64, 1}}) {
    const Map y = RandomMap(10, 6, out, 14);
    MapRef expected = DupUpRef(x.ref, out, factor);
    for (size_t i = 0; i < expected.values.size(); ++i) expected.values[i] += y.ref.values[i];
    ASSERT_EQ(cuda::DupUpAdd(x.device.data(), 5, 3, 64, out, factor, y.device.data(), stream()), cudaSuccess);
    EXPECT_LT(RelativeError(ToHost(y.device), expected.values), kOneRounding) << out << " " << factor;
  }
}

TEST_F(CudaVaeOpsTest, ShortcutOfAHalvingStage) {
  struct Case {
    int64_t in, out, factor;
  };
  for (const Case& c : {Case{16, 16, 1}, Case{16, 32, 2}, Case{32, 32, 2}, Case{320, 640, 2}}) {
    const Map x = RandomMap(6, 10, c.in, 15);
    const auto y = Poisoned<bf16>(15 * c.out);
    ASSERT_EQ(cuda::AvgDown(x.device.data(), 3, 5, c.in, c.out, c.factor, y.data(), stream()), cudaSuccess);
    EXPECT_LT(RelativeError(ToHost(y), AvgDownRef(x.ref, c.out, c.factor).values), kOneRounding)
        << c.in << " " << c.out << " " << c.factor;
  }
}

TEST_F(CudaVaeOpsTest, HalvingIsAConvolutionOfThePaddedMap) {
  const Map x = RandomMap(8, 12, 16, 16);
  const auto padded = Poisoned<bf16>(9 * 13 * 16);
  ASSERT_EQ(cuda::PadAfter(x.device.data(), 8, 12, 16, padded.data(), stream()), cudaSuccess);
  const auto weight = RandomFloats(16 * 16 * 9, 17, -0.1f, 0.1f);
  const auto bias = RandomFloats(16, 18);
  auto conv = CudaConv2d::Create(*ctx_, {16, 16, 3, 2}, weight, bias);
  ASSERT_TRUE(conv.ok()) << conv.status();
  const auto y = Poisoned<bf16>(4 * 6 * 16);
  ASSERT_TRUE(conv->Forward(padded.data(), 9, 13, nullptr, y.data()).ok());
  const MapRef expected = ConvRef(x.ref, {16, 16, 3, 2}, weight, bias, {0, 0, 1, 1});
  EXPECT_LT(RelativeError(ToHost(y), expected.values), 3e-3);
}

TEST_F(CudaVaeOpsTest, AddsMaps) {
  const Map x = RandomMap(3, 5, 8, 19);
  const Map y = RandomMap(3, 5, 8, 20);
  std::vector<double> expected;
  for (size_t i = 0; i < x.ref.values.size(); ++i) {
    expected.push_back(RoundToBf16(static_cast<float>(x.ref.values[i] + y.ref.values[i])));
  }
  ASSERT_EQ(cuda::AddMap(x.device.data(), 120, y.device.data(), stream()), cudaSuccess);
  EXPECT_EQ(RelativeError(ToHost(y.device), expected), 0);
  EXPECT_EQ(cuda::AddMap(x.device.data(), 7, y.device.data(), stream()), cudaErrorInvalidValue);
}

// Bytes of a picture to patches of four pixels, exactly as the host makes them.
TEST_F(CudaVaeOpsTest, CutsPicturesIntoPatches) {
  constexpr int kHeight = 6;
  constexpr int kWidth = 10;
  RgbImage image{kWidth, kHeight, {}};
  TestRandom random(21);
  for (int i = 0; i < 3 * kHeight * kWidth; ++i) image.pixels.push_back(static_cast<uint8_t>(random.Bits()));
  const auto planes = ImageToPixels(image);
  ASSERT_TRUE(planes.ok()) << planes.status();
  const auto rgb = ToDevice(image.pixels);
  const auto device_planes = Poisoned<float>(3 * kHeight * kWidth);
  ASSERT_EQ(cuda::RgbToPlanes(rgb.data(), kHeight * kWidth, device_planes.data(), stream()), cudaSuccess);
  EXPECT_EQ(ToHost(device_planes), *planes);

  const auto patches = Poisoned<bf16>(kHeight / 2 * kWidth / 2 * cuda::kPatchChannels);
  ASSERT_EQ(cuda::Patchify(device_planes.data(), kHeight / 2, kWidth / 2, patches.data(), stream()),
            cudaSuccess);
  std::vector<bf16> expected;
  for (int i = 0; i < kHeight / 2; ++i) {
    for (int j = 0; j < kWidth / 2; ++j) {
      for (int channel = 0; channel < cuda::kPatchChannels; ++channel) {
        const int dx = channel / 2 % 2;
        const int dy = channel % 2;
        const int pixel = (2 * i + dy) * kWidth + 2 * j + dx;
        expected.push_back(channel < 12 ? ToBf16((*planes)[channel / 4 * kHeight * kWidth + pixel])
                                        : bf16{0});
      }
    }
  }
  EXPECT_EQ(ToHost(patches), expected);
}

TEST_F(CudaVaeOpsTest, NormalisesLatents) {
  constexpr int64_t kLatents = 7;
  constexpr int64_t kChannels = 48;
  const std::vector<float> moments = RandomFloats(kLatents * 2 * kChannels, 22, -2.0f, 2.0f);
  const std::vector<float> mean = RandomFloats(kChannels, 23);
  const std::vector<float> inv_std = RandomFloats(kChannels, 24, 0.5f, 2.5f);
  const std::vector<float> noise = RandomFloats(kLatents * kChannels, 25, -3.0f, 3.0f);
  const auto device_moments = ToDevice(ToBf16s(moments));
  const auto device_mean = ToDevice(mean);
  const auto device_inv_std = ToDevice(inv_std);
  const auto device_noise = ToDevice(noise);
  for (const bool noisy : {false, true}) {
    const auto latents = Poisoned<bf16>(kLatents * kChannels);
    ASSERT_EQ(cuda::NormaliseLatents(device_moments.data(), device_mean.data(), device_inv_std.data(),
                                     noisy ? device_noise.data() : nullptr, kLatents, kChannels,
                                     latents.data(), stream()),
              cudaSuccess);
    const std::vector<bf16> got = ToHost(latents);
    for (int64_t i = 0; i < kLatents * kChannels; ++i) {
      const int64_t c = i % kChannels;
      const float* row = moments.data() + i / kChannels * 2 * kChannels;
      float expected = RoundToBf16(RoundToBf16(row[c] - mean[c]) * inv_std[c]);
      if (!noisy) {
        ASSERT_EQ(ToFloat(got[i]), expected);
        continue;
      }
      expected += noise[i] * std::exp(0.5f * row[kChannels + c]);
      ASSERT_NEAR(ToFloat(got[i]), expected, std::abs(expected) * kOneRounding * 2 + 1e-6);
    }
  }
}

TEST_F(CudaVaeOpsTest, UnpatchifiesToPlanes) {
  const Map x = RandomMap(3, 5, 12, 26);
  const auto planes = Poisoned<float>(3 * 6 * 10);
  ASSERT_EQ(cuda::Unpatchify(x.device.data(), 3, 5, /*clamp=*/false, planes.data(), stream()), cudaSuccess);
  const std::vector<float> got = ToHost(planes);
  EXPECT_EQ(std::vector<double>(got.begin(), got.end()), UnpatchifyRef(x.ref));
}

}  // namespace
}  // namespace lancet
