#include "worker/engine/denoise.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace lancet {

namespace {

// n + 1 evenly spaced values from 1 to 0 as the reference's tensor library computes them in f32: counted from
// the nearer end, and, in pairs of eight while they last, as the first of the eight plus a multiple of the
// spacing. Other roundings differ in the last bit of some values, and with them a few steps.
std::vector<float> EvenlySpaced(int32_t n) {
  constexpr int32_t kLane = 8;
  const int32_t count = n + 1;
  const float step = -1.0f / static_cast<float>(n);
  const auto value = [&](int32_t i) {
    return i < count / 2 ? 1.0f + step * static_cast<float>(i) : -step * static_cast<float>(count - i - 1);
  };
  const int32_t in_lanes = count / (2 * kLane) * (2 * kLane);
  std::vector<float> values(count);
  for (int32_t i = 0; i < count; ++i) {
    values[i] = i < in_lanes ? value(i / kLane * kLane) + static_cast<float>(i % kLane) * step : value(i);
  }
  return values;
}

}  // namespace

std::vector<float> TimestepSchedule(int32_t num_steps, float timestep_shift) {
  std::vector<float> times = EvenlySpaced(num_steps);
  for (float& t : times) t = timestep_shift * t / (1.0f + (timestep_shift - 1.0f) * t);
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

SolverWeights MultistepWeights(std::optional<float> previous_t, float t, float next_t) {
  const double keep = static_cast<double>(next_t) / t;
  double q = 0;
  if (previous_t.has_value() && *previous_t < 1.0f && next_t > 0.0f) {
    const auto lambda = [](double time) { return std::log((1 - time) / time); };
    q = (lambda(next_t) - lambda(t)) / (2 * (lambda(t) - lambda(*previous_t)));
  }
  const double share = 1 - keep;
  return {keep, share * (1 + q), -share * q};
}

void MultistepSolver::Step(ConstMatrixView<bf16> velocity, float t, float next_t, MatrixView<bf16> latents) {
  const SolverWeights exact = MultistepWeights(previous_t_, t, next_t);
  const auto keep = static_cast<float>(exact.latents);
  const auto share = static_cast<float>(exact.clean);
  const auto previous_share = static_cast<float>(exact.previous);
  std::vector<float> clean = EstimateClean(latents, velocity, t);
  for (int64_t r = 0; r < latents.rows; ++r) {
    for (int64_t c = 0; c < latents.cols; ++c) {
      bf16& x = latents.row(r)[c];
      const int64_t i = r * latents.cols + c;
      float next = keep * ToFloat(x) + share * clean[i];
      if (previous_share != 0.0f) next += previous_share * previous_clean_[i];
      x = ToBf16(next);
    }
  }
  previous_clean_ = std::move(clean);
  previous_t_ = t;
}

}  // namespace lancet
