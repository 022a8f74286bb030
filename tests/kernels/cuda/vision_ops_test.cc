// The vision tower's own steps against the host's.

#include "kernels/cuda/vision_ops.h"

#include <cmath>
#include <vector>

#include "tests/kernels/cuda/cuda_testing.h"
#include "worker/model/vision/vision_layout.h"
#include "worker/model/vision/vision_patches.h"
#include "worker/model/vision/vision_rotary.h"

namespace lancet {
namespace {

using CudaVisionOpsTest = CudaTest;

VisionConfig SmallConfig() {
  VisionConfig config;
  config.hidden_size = 160;
  config.num_heads = 2;
  config.head_dim = 80;
  return config;
}

TEST_F(CudaVisionOpsTest, CutsPicturesAsTheHostDoes) {
  const VisionConfig config = SmallConfig();
  RgbImage image{28 * 7, 28 * 5, {}};
  TestRandom random(1);
  for (int i = 0; i < 3 * image.width * image.height; ++i) {
    image.pixels.push_back(static_cast<uint8_t>(random.Bits()));
  }
  const auto patches = PicturePatches::Create(config, image);
  ASSERT_TRUE(patches.ok()) << patches.status();
  const VisionGrid grid = patches->grid();
  const auto layout = MakeVisionLayout(config, {&grid, 1}, 1000);
  ASSERT_TRUE(layout.ok()) << layout.status();
  const int64_t count = layout->patches();
  const int64_t rows = count + 3;
  const int64_t values = config.patch_values();
  std::vector<bf16> expected(rows * values);
  for (int64_t i = 0; i < count; ++i) {
    patches->Fill(layout->cells[i / 4] * 4 + i % 4, expected.data() + i * values);
  }
  std::vector<cuda::PatchPosition> places;
  for (const PatchPlace& place : layout->places) places.push_back({place.row, place.col});
  std::vector<bf16> value_of;
  for (int channel = 0; channel < 3; ++channel) {
    for (int pixel = 0; pixel < 256; ++pixel) {
      value_of.push_back(ToBf16(patches->value_of(channel, static_cast<uint8_t>(pixel))));
    }
  }
  const auto device_rgb = ToDevice(image.pixels);
  const auto device_places = ToDevice(places);
  const auto device_values = ToDevice(value_of);
  const auto out = Poisoned<bf16>(rows * values);
  cuda::CutPatchesArgs args;
  args.rgb = device_rgb.data();
  args.width = image.width;
  args.places = device_places.data();
  args.value_of = device_values.data();
  args.patches = count;
  args.rows = rows;
  args.side = config.patch_size;
  args.frames = config.temporal_patch_size;
  args.out = out.data();
  ASSERT_EQ(cuda::CutPatches(args, stream()), cudaSuccess);
  EXPECT_EQ(ToHost(out), expected);
}

TEST_F(CudaVisionOpsTest, RotatesByRowAndColumn) {
  constexpr int64_t kRows = 37;
  constexpr int64_t kHeads = 6;
  constexpr int64_t kSide = 60;
  for (const int64_t d : {64, 80, 128}) {
    const VisionRotaryTable table(d);
    const int64_t angles = d / 2;
    std::vector<bf16> cos(kRows * angles);
    std::vector<bf16> sin(kRows * angles);
    std::vector<cuda::PatchPosition> places;
    TestRandom random(2);
    for (int64_t i = 0; i < kRows; ++i) {
      const PatchPlace place{static_cast<int32_t>(random.Bits() % kSide),
                             static_cast<int32_t>(random.Bits() % kSide)};
      places.push_back({place.row, place.col});
      table.Row(place, cos.data() + i * angles, sin.data() + i * angles);
    }
    std::vector<bf16> axis_cos;
    std::vector<bf16> axis_sin;
    for (int32_t p = 0; p < kSide; ++p) {
      std::vector<bf16> row_cos(angles);
      std::vector<bf16> row_sin(angles);
      table.Row({p, 0}, row_cos.data(), row_sin.data());
      axis_cos.insert(axis_cos.end(), row_cos.begin(), row_cos.begin() + angles / 2);
      axis_sin.insert(axis_sin.end(), row_sin.begin(), row_sin.begin() + angles / 2);
    }
    // Heads of q and k in rows that hold v as well, which stays.
    const int64_t stride = kHeads * d + 3 * d;
    std::vector<bf16> x;
    for (int64_t i = 0; i < kRows * stride; ++i) x.push_back(ToBf16(random.Uniform(-2.0f, 2.0f)));
    const auto device_x = ToDevice(x);
    const auto device_places = ToDevice(places);
    const auto device_cos = ToDevice(axis_cos);
    const auto device_sin = ToDevice(axis_sin);
    ASSERT_EQ(cuda::RotateByPlace(device_places.data(), device_cos.data(), device_sin.data(), kRows, kHeads,
                                  d, stride, device_x.data(), stream()),
              cudaSuccess);
    const std::vector<bf16> got = ToHost(device_x);
    for (int64_t i = 0; i < kRows; ++i) {
      for (int64_t c = 0; c < stride; ++c) {
        const float before = ToFloat(x[i * stride + c]);
        if (c >= kHeads * d) {
          ASSERT_EQ(ToFloat(got[i * stride + c]), before);
          continue;
        }
        const int64_t f = c % d % angles;
        const double cosine = ToFloat(cos[i * angles + f]);
        const double sine = ToFloat(sin[i * angles + f]);
        const bool first = c % d < angles;
        const double partner = ToFloat(x[i * stride + (first ? c + angles : c - angles)]);
        const double expected = before * cosine + (first ? -partner : partner) * sine;
        ASSERT_NEAR(ToFloat(got[i * stride + c]), expected, std::abs(expected) * 0x1p-8 + 1e-6);
      }
    }
  }
  EXPECT_EQ(cuda::RotateByPlace(nullptr, nullptr, nullptr, 1, 1, 72, 72, nullptr, stream()),
            cudaErrorInvalidValue);
}

TEST_F(CudaVisionOpsTest, GeluIsExact) {
  std::vector<bf16> x;
  for (int i = -800; i <= 800; ++i) x.push_back(ToBf16(static_cast<float>(i) * 0.01f));
  const auto device_x = ToDevice(x);
  ASSERT_EQ(cuda::Gelu(device_x.data(), static_cast<int64_t>(x.size()), stream()), cudaSuccess);
  const std::vector<bf16> got = ToHost(device_x);
  for (size_t i = 0; i < x.size(); ++i) {
    const double v = ToFloat(x[i]);
    const double expected = 0.5 * v * std::erfc(-v / std::sqrt(2.0));
    ASSERT_NEAR(ToFloat(got[i]), expected, std::abs(expected) * 0x1p-8 + 1e-30) << v;
  }
}

}  // namespace
}  // namespace lancet
