#include "common/noise.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/bf16.h"
#include "common/safetensors.h"

namespace lancet {
namespace {

// Values drawn on a GPU, as "seed<S>.n<N>.<quantity>".
struct Draw {
  std::string prefix;
  uint64_t seed = 0;
  int64_t count = 0;
};

class NoiseTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto file = SafetensorsFile::Open(absl::StrCat(LANCET_TEST_DATA, "/golden/philox.safetensors"));
    ASSERT_TRUE(file.ok()) << file.status();
    golden_ = *std::move(file);
    for (const std::string& name : golden_->names()) {
      const std::vector<std::string> parts = absl::StrSplit(name, '.');
      ASSERT_EQ(parts.size(), 3u) << name;
      if (parts[2] != "bf16_head") continue;
      Draw draw;
      draw.prefix = absl::StrCat(parts[0], ".", parts[1], ".");
      ASSERT_TRUE(absl::SimpleAtoi(parts[0].substr(4), &draw.seed)) << name;
      ASSERT_TRUE(absl::SimpleAtoi(parts[1].substr(1), &draw.count)) << name;
      draws_.push_back(draw);
    }
    ASSERT_GE(draws_.size(), 8u);
  }

  // Counts elements of `values` that differ from the golden after rounding; none may differ by more than one
  // step.
  void CompareBf16(const std::string& name, const float* values) {
    const TensorView golden = golden_->Get(name).value();
    ASSERT_EQ(golden.dtype, DType::kBf16) << name;
    for (int64_t i = 0; i < golden.num_elements(); ++i) {
      const int ours = ToBf16(values[i]).bits;
      const int device = golden.as<bf16>()[i].bits;
      ++compared_;
      if (ours == device) continue;
      ++different_;
      EXPECT_LE(std::abs(ours - device), 1) << name << "[" << i << "]";
    }
  }

  std::unique_ptr<SafetensorsFile> golden_;
  std::vector<Draw> draws_;
  int64_t compared_ = 0;
  int64_t different_ = 0;
};

// The device approximates ln, sin and cos; with correct rounding at least 99.97 % of elements agree.
TEST_F(NoiseTest, Bf16ValuesAgreeWithTheDevice) {
  for (const Draw& draw : draws_) {
    std::vector<float> first(static_cast<size_t>(draw.count));
    const uint64_t offset = FillNormalNoise(draw.seed, 0, draw.count, 0, absl::MakeSpan(first));
    EXPECT_EQ(offset % 4, 0u);
    CompareBf16(draw.prefix + "bf16_head", first.data());
    if (const std::string tail = draw.prefix + "bf16_tail"; golden_->Contains(tail)) {
      const int64_t length = golden_->Get(tail).value().num_elements();
      CompareBf16(tail, first.data() + draw.count - length);
    }
    const std::string second_name = draw.prefix + "second_draw_bf16_head";
    ASSERT_TRUE(golden_->Contains(second_name));
    std::vector<float> second(static_cast<size_t>(golden_->Get(second_name).value().num_elements()));
    FillNormalNoise(draw.seed, offset, draw.count, 0, absl::MakeSpan(second));
    CompareBf16(second_name, second.data());
  }
  EXPECT_GT(compared_, 10'000);
  EXPECT_LE(static_cast<double>(different_), 3e-4 * static_cast<double>(compared_))
      << different_ << " of " << compared_;
}

// The largest difference seen between the device and a correctly rounded CPU: six f32 steps at 2.39,
// about 1.4e-6.
TEST_F(NoiseTest, F32ValuesAreWithinTheDevicesError) {
  for (const Draw& draw : draws_) {
    const std::string name = draw.prefix + "f32_head";
    ASSERT_TRUE(golden_->Contains(name));
    const TensorView golden = golden_->Get(name).value();
    ASSERT_EQ(golden.dtype, DType::kF32);
    std::vector<float> values(static_cast<size_t>(golden.num_elements()));
    FillNormalNoise(draw.seed, draw.count, 0, absl::MakeSpan(values));
    for (size_t i = 0; i < values.size(); ++i) EXPECT_NEAR(values[i], golden.as<float>()[i], 1.44e-6) << name;
  }
}

// 2.3 million values take three rounds of all threads, so parts cross from one to the next.
TEST(NoisePartsTest, AnyPartEqualsThatPartOfTheWhole) {
  constexpr int64_t kCount = 2'300'000;
  std::vector<float> whole(kCount);
  FillNormalNoise(7, kCount, 0, absl::MakeSpan(whole));
  for (const auto& [begin, size] : std::vector<std::pair<int64_t, int64_t>>{
           {0, 1}, {1, 5}, {255, 514}, {270'335, 3}, {1'081'340, 10}, {kCount - 9, 9}, {100, 0}}) {
    std::vector<float> part(static_cast<size_t>(size));
    FillNormalNoise(7, kCount, begin, absl::MakeSpan(part));
    for (int64_t i = 0; i < size; ++i) {
      EXPECT_EQ(part[static_cast<size_t>(i)], whole[static_cast<size_t>(begin + i)]) << begin << " + " << i;
    }
  }
}

TEST(NoisePartsTest, OffsetGrowsByFourARound) {
  EXPECT_EQ(FillNormalNoise(1, 0, 1, 0, {}), 4u);
  EXPECT_EQ(FillNormalNoise(1, 8, 1'081'344, 0, {}), 12u);  // 4 * 256 * 8 * 132 values
  EXPECT_EQ(FillNormalNoise(1, 0, 1'081'345, 0, {}), 8u);
}

}  // namespace
}  // namespace lancet
