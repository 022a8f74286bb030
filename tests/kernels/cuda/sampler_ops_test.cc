// Embedding, sampler and token choice on the device: exact rules, so equal bits.
#include "kernels/cuda/sampler_ops.h"

#include <algorithm>
#include <cmath>

#include "kernels/cuda/embedding.h"
#include "tests/kernels/cuda/cuda_testing.h"

namespace lancet {
namespace {

class CudaSamplerTest : public CudaTest {};

TEST_F(CudaSamplerTest, GuidanceAndEulerRoundAsTheSamplerDoes) {
  constexpr int64_t kValues = 48 * 321;
  const std::vector<bf16> velocity = RandomVector(kValues, 1, -2.0f, 2.0f);
  const std::vector<bf16> unconditional = RandomVector(kValues, 2, -2.0f, 2.0f);
  const std::vector<bf16> latents = RandomVector(kValues, 3, -3.0f, 3.0f);
  double velocity_sum = 0;
  double guided_sum = 0;
  std::vector<float> guided;
  for (int64_t i = 0; i < kValues; ++i) {
    const float v = ToFloat(velocity[i]);
    const float u = ToFloat(unconditional[i]);
    const float w = RoundToBf16(u + RoundToBf16(4.0f * RoundToBf16(v - u)));
    guided.push_back(w);
    velocity_sum += static_cast<double>(v) * v;
    guided_sum += static_cast<double>(w) * w;
  }
  const float ratio =
      static_cast<float>(std::sqrt(velocity_sum)) / (static_cast<float>(std::sqrt(guided_sum)) + 1e-8f);
  const float gain = RoundToBf16(std::clamp(ratio, 0.0f, 1.0f));
  ASSERT_LT(gain, 1.0f);

  const auto device_velocity = ToDevice(velocity);
  const auto device_unconditional = ToDevice(unconditional);
  const auto device_latents = ToDevice(latents);
  const auto scratch = Poisoned<double>(2 * cuda::kNormBlocks);
  cuda::StepScalars scalars;
  scalars.dt = 0.01234f;
  const auto device_scalars = ToDevice(std::vector<cuda::StepScalars>{scalars});
  ASSERT_EQ(cuda::ApplyGuidance(4.0f, device_unconditional.data(), kValues, device_velocity.data(),
                                scratch.data(), stream()),
            cudaSuccess);
  ASSERT_EQ(cuda::EulerStep(device_velocity.data(), device_scalars.data(), kValues, device_latents.data(),
                            stream()),
            cudaSuccess);
  const auto clean = Poisoned<float>(kValues);
  ASSERT_EQ(cuda::EstimateClean(device_latents.data(), device_velocity.data(), scalars.dt, kValues,
                                clean.data(), stream()),
            cudaSuccess);
  const std::vector<bf16> got_velocity = ToHost(device_velocity);
  const std::vector<bf16> got_latents = ToHost(device_latents);
  const std::vector<float> got_clean = ToHost(clean);
  for (int64_t i = 0; i < kValues; ++i) {
    const bf16 v = ToBf16(guided[i] * gain);
    ASSERT_EQ(got_velocity[i], v) << i;
    const bf16 x = ToBf16(ToFloat(latents[i]) - RoundToBf16(ToFloat(v) * RoundToBf16(0.01234f)));
    ASSERT_EQ(got_latents[i], x) << i;
    ASSERT_EQ(got_clean[i], ToFloat(x) - 0.01234f * ToFloat(v)) << i;
  }
}

TEST_F(CudaSamplerTest, ArgmaxTakesTheLowestOfEqualsBelowTheLimit) {
  constexpr int64_t kVocabulary = 151936;
  constexpr int64_t kLimit = 151665;
  std::vector<bf16> logits = RandomVector(4 * kVocabulary, 5, -1.0f, 1.0f);
  const auto at = [&](int64_t row, int64_t id) -> bf16& { return logits[row * kVocabulary + id]; };
  at(0, 151664) = at(0, 777) = at(0, 90000) = ToBf16(2.0f);
  at(1, 151664) = ToBf16(2.0f);
  at(1, 151665) = ToBf16(9.0f);  // beyond the limit
  at(2, 0) = ToBf16(2.0f);
  at(2, 5) = bf16{0x7fc0};  // NaN
  for (int64_t i = 0; i < kVocabulary; ++i) at(3, i) = ToBf16(-3.0f);
  const auto device_logits = ToDevice(logits);
  const auto scratch = Poisoned<cuda::ArgmaxPair>(4 * cuda::kArgmaxBlocks);
  const auto ids = Poisoned<int32_t>(4);
  ASSERT_EQ(cuda::Argmax(device_logits.data(), 4, kVocabulary, kLimit, scratch.data(), ids.data(), stream()),
            cudaSuccess);
  EXPECT_EQ(ToHost(ids), (std::vector<int32_t>{777, 151664, 0, 0}));
}

TEST_F(CudaSamplerTest, TokensAreGatheredAndLatentsGetTimeAndPlace) {
  constexpr int64_t kCols = 64;
  const std::vector<bf16> table = RandomVector(10 * kCols, 6);
  const std::vector<int32_t> ids = {9, 0, 3, 3};
  const auto device_table = ToDevice(table);
  const auto device_ids = ToDevice(ids);
  const auto rows = Poisoned<bf16>(4 * kCols);
  ASSERT_EQ(cuda::GatherRows(device_table.data(), device_ids.data(), 4, kCols, rows.data(), stream()),
            cudaSuccess);
  const std::vector<bf16> got = ToHost(rows);
  for (size_t i = 0; i < ids.size(); ++i) {
    EXPECT_TRUE(SameBits(got.data() + i * kCols, table.data() + ids[i] * kCols, kCols));
  }

  constexpr int64_t kSide = 4;
  constexpr int64_t kPart = 20;  // 64 / 3, rounded down to even
  const std::vector<bf16> by_position = RandomVector(kSide * kPart, 7);
  const std::vector<bf16> by_position_w = RandomVector(kSide * (kCols - 2 * kPart), 8);
  const std::vector<bf16> times = RandomVector(3 * kCols, 9);
  const bf16* const time = times.data() + 2 * kCols;
  constexpr int64_t kWidth = 5;  // wider than the table: column 4 spills into the next line
  const std::vector<bf16> x = RandomVector(3 * kWidth * kCols, 10);
  const auto device_x = ToDevice(x);
  const auto device_by_position = ToDevice(by_position);
  const auto device_by_position_w = ToDevice(by_position_w);
  const auto device_times = ToDevice(times);
  const auto step = ToDevice(std::vector<int32_t>{2});
  const cuda::PositionTable positions = {device_by_position.data(), device_by_position_w.data(), kSide,
                                         kPart};
  ASSERT_EQ(cuda::AddTimeAndPosition(device_times.data(), step.data(), positions, 3 * kWidth, kWidth, kCols,
                                     device_x.data(), stream()),
            cudaSuccess);
  const std::vector<bf16> sum = ToHost(device_x);
  for (int64_t i = 0; i < 3 * kWidth; ++i) {
    const int64_t index = i / kWidth * kSide + i % kWidth;
    for (int64_t c = 0; c < kCols; ++c) {
      const bf16 place = c < kPart       ? by_position[c]
                         : c < 2 * kPart ? by_position[index / kSide % kSide * kPart + c - kPart]
                                         : by_position_w[index % kSide * (kCols - 2 * kPart) + c - 2 * kPart];
      const float with_time = RoundToBf16(ToFloat(x[i * kCols + c]) + ToFloat(time[c]));
      ASSERT_EQ(sum[i * kCols + c], ToBf16(with_time + ToFloat(place))) << "latent " << i << ", column " << c;
    }
  }
}

}  // namespace
}  // namespace lancet
