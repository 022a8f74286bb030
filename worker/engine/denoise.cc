#include "worker/engine/denoise.h"

#include <algorithm>
#include <cmath>

namespace lancet {

std::vector<float> TimestepSchedule(int32_t num_steps, float timestep_shift) {
  // Evenly spaced values counted from the nearer end, in f32: what the reference's tensor library computes.
  const float step = -1.0f / static_cast<float>(num_steps);
  std::vector<float> times(num_steps + 1);
  for (int32_t i = 0; i <= num_steps; ++i) {
    const float s = i < (num_steps + 1) / 2 ? 1.0f + step * static_cast<float>(i)
                                            : -step * static_cast<float>(num_steps - i);
    times[i] = timestep_shift * s / (1.0f + (timestep_shift - 1.0f) * s);
  }
  return times;
}

bool IsGuided(const SamplerParams& sampler, float t) {
  return sampler.guidance_scale > 1.0f && t > sampler.guidance_start && t <= sampler.guidance_end;
}

float ApplyGuidance(float guidance_scale, ConstMatrixView<bf16> unconditional, MatrixView<bf16> velocity) {
  const float scale = RoundToBf16(guidance_scale);
  double velocity_sum = 0;
  double guided_sum = 0;
  std::vector<float> guided(velocity.rows * velocity.cols);
  for (int64_t r = 0; r < velocity.rows; ++r) {
    for (int64_t c = 0; c < velocity.cols; ++c) {
      const float v = ToFloat(velocity.row(r)[c]);
      const float u = ToFloat(unconditional.row(r)[c]);
      const float w = RoundToBf16(u + RoundToBf16(scale * RoundToBf16(v - u)));
      guided[r * velocity.cols + c] = w;
      velocity_sum += static_cast<double>(v) * v;
      guided_sum += static_cast<double>(w) * w;
    }
  }
  const float ratio =
      static_cast<float>(std::sqrt(velocity_sum)) / (static_cast<float>(std::sqrt(guided_sum)) + 1e-8f);
  const float gain = std::clamp(ratio, 0.0f, 1.0f);
  const float rounded_gain = RoundToBf16(gain);
  for (int64_t r = 0; r < velocity.rows; ++r) {
    for (int64_t c = 0; c < velocity.cols; ++c) {
      velocity.row(r)[c] = ToBf16(guided[r * velocity.cols + c] * rounded_gain);
    }
  }
  return gain;
}

void EulerStep(ConstMatrixView<bf16> velocity, float dt, MatrixView<bf16> latents) {
  const float step = RoundToBf16(dt);
  for (int64_t r = 0; r < latents.rows; ++r) {
    for (int64_t c = 0; c < latents.cols; ++c) {
      bf16& x = latents.row(r)[c];
      x = ToBf16(ToFloat(x) - RoundToBf16(ToFloat(velocity.row(r)[c]) * step));
    }
  }
}

std::vector<float> EstimateClean(ConstMatrixView<bf16> latents, ConstMatrixView<bf16> velocity, float t) {
  std::vector<float> clean;
  clean.reserve(latents.rows * latents.cols);
  for (int64_t r = 0; r < latents.rows; ++r) {
    for (int64_t c = 0; c < latents.cols; ++c) {
      clean.push_back(ToFloat(latents.row(r)[c]) - t * ToFloat(velocity.row(r)[c]));
    }
  }
  return clean;
}

}  // namespace lancet
