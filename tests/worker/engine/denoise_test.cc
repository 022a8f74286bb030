#include "worker/engine/denoise.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

namespace lancet {
namespace {

std::vector<bf16> Values(std::initializer_list<float> values) {
  std::vector<bf16> out;
  for (const float v : values) out.push_back(ToBf16(v));
  return out;
}

TEST(TimestepScheduleTest, RunsFromOneToZeroWithTheShift) {
  const std::vector<float> t = TimestepSchedule(30, 3.5f);
  ASSERT_EQ(t.size(), 31u);
  EXPECT_EQ(t[0], 1.0f);
  EXPECT_EQ(t[30], 0.0f);
  EXPECT_NEAR(t[1], .990244f, 1e-6);
  EXPECT_NEAR(t[15], .777778f, 1e-6);
  EXPECT_NEAR(t[29], .107692f, 1e-6);
}

TEST(TimestepScheduleTest, GuidanceCoversTheFirst26Of30Steps) {
  const std::vector<float> t = TimestepSchedule(30, 3.5f);
  SamplerParams sampler;
  int guided = 0;
  for (int i = 0; i < 30; ++i) guided += IsGuided(sampler, t[i]) ? 1 : 0;
  EXPECT_EQ(guided, 26);
  EXPECT_TRUE(IsGuided(sampler, t[25]));
  EXPECT_FALSE(IsGuided(sampler, t[26]));
  sampler.guidance_scale = 1.0f;
  EXPECT_FALSE(IsGuided(sampler, 1.0f));
}

TEST(ApplyGuidanceTest, RenormalisesToTheConditionalNorm) {
  std::vector<bf16> v = Values({3, 4});
  const std::vector<bf16> u = Values({0, 0});
  // w = 4 v, so the factor is 1 / 4 and the direction stays.
  const float gain =
      ApplyGuidance(4.0f, ConstMatrixView<bf16>(u.data(), 1, 2), MatrixView<bf16>(v.data(), 1, 2));
  EXPECT_NEAR(gain, 0.25f, 1e-6);
  EXPECT_EQ(ToFloat(v[0]), 3.0f);
  EXPECT_EQ(ToFloat(v[1]), 4.0f);
}

TEST(ApplyGuidanceTest, NeverEnlarges) {
  std::vector<bf16> v = Values({4, 0});
  const std::vector<bf16> u = Values({5, 0});
  // w = 5 + 2 (4 - 5) = 3 is shorter than v: the factor stops at 1.
  EXPECT_EQ(ApplyGuidance(2.0f, ConstMatrixView<bf16>(u.data(), 1, 2), MatrixView<bf16>(v.data(), 1, 2)),
            1.0f);
  EXPECT_EQ(ToFloat(v[0]), 3.0f);
}

TEST(ApplyGuidanceTest, EqualBranchesChangeNothing) {
  std::vector<bf16> v = Values({0.3f, -1.7f, 2.2f, 0});
  const std::vector<bf16> before = v;
  ApplyGuidance(4.0f, ConstMatrixView<bf16>(before.data(), 2, 2), MatrixView<bf16>(v.data(), 2, 2));
  EXPECT_EQ(v, before);
}

TEST(EulerStepTest, RoundsStepAndProductToBf16) {
  std::vector<bf16> x = Values({1.0f});
  const std::vector<bf16> v = Values({1.0f});
  EulerStep(ConstMatrixView<bf16>(v.data(), 1, 1), 0.009756088f, MatrixView<bf16>(x.data(), 1, 1));
  EXPECT_EQ(x[0], ToBf16(1.0f - 0.009765625f));
}

TEST(EstimateCleanTest, FollowsTheVelocityToTimeZero) {
  const std::vector<bf16> x = Values({2.0f, -1.0f});
  const std::vector<bf16> v = Values({4.0f, 0.5f});
  const std::vector<float> clean =
      EstimateClean(ConstMatrixView<bf16>(x.data(), 1, 2), ConstMatrixView<bf16>(v.data(), 1, 2), 0.25f);
  EXPECT_EQ(clean, (std::vector<float>{1.0f, -1.125f}));
}

// Normal data of mean m and deviation s (1, as latents are normalised): the clean estimate at time t is known
// exactly, and the flow takes noise e to m + s e.
struct NormalData {
  double mean = 0.7;
  double deviation = 1.0;

  double Clean(double x, double t) const {
    const double variance = deviation * deviation;
    return mean + (1 - t) * variance / ((1 - t) * (1 - t) * variance + t * t) * (x - (1 - t) * mean);
  }
  double Velocity(double x, double t) const { return (x - Clean(x, t)) / t; }
  double End(double noise) const { return mean + deviation * noise; }
};

// Where n steps of the schedule take `noise`, in f64.
double Solve(const NormalData& data, int steps, bool multistep, double noise) {
  const std::vector<float> times = TimestepSchedule(steps, 3.5f);
  double x = noise;
  double previous_clean = 0;
  for (int i = 0; i < steps; ++i) {
    const double clean = data.Clean(x, times[i]);
    const std::optional<float> previous = i > 0 && multistep ? std::optional(times[i - 1]) : std::nullopt;
    const SolverWeights w = MultistepWeights(previous, times[i], times[i + 1]);
    x = w.latents * x + w.clean * clean + w.previous * previous_clean;
    previous_clean = clean;
  }
  return x;
}

TEST(MultistepWeightsTest, FirstOrderIsEuler) {
  const NormalData data;
  for (const auto& [t, next] : {std::pair{1.0f, 0.9f}, {0.6f, 0.25f}, {0.1f, 0.0f}}) {
    const SolverWeights w = MultistepWeights(std::nullopt, t, next);
    const double x = 1.3;
    EXPECT_NEAR(w.latents * x + w.clean * data.Clean(x, t),
                x - (static_cast<double>(t) - next) * data.Velocity(x, t), 1e-12);
    EXPECT_EQ(w.previous, 0);
  }
}

TEST(MultistepWeightsTest, EndsOfTheScheduleAreFirstOrder) {
  const SolverWeights second = MultistepWeights(1.0f, 0.9f, 0.8f);
  EXPECT_EQ(second.previous, 0);
  EXPECT_NEAR(second.latents, 0.8 / 0.9, 1e-7);
  const SolverWeights last = MultistepWeights(0.5f, 0.25f, 0.0f);
  EXPECT_EQ(last.latents, 0);
  EXPECT_EQ(last.clean, 1);
  EXPECT_EQ(last.previous, 0);
}

TEST(MultistepWeightsTest, FollowTheFormulaInBetween) {
  // By hand, in powers of e: alpha' = 0.75, h = log(3 / 1), h_previous = log(1 / (1 / 3)); q is a half.
  const SolverWeights w = MultistepWeights(0.75f, 0.5f, 0.25f);
  EXPECT_NEAR(w.latents, 0.5, 1e-12);
  EXPECT_NEAR(w.clean, 0.75, 1e-12);
  EXPECT_NEAR(w.previous, -0.25, 1e-12);
}

TEST(MultistepWeightsTest, ConvergesWithSecondOrder) {
  const NormalData data;
  for (const double noise : {-1.7, 0.4, 2.2}) {
    const auto error = [&](int steps, bool multistep) {
      return std::abs(Solve(data, steps, multistep, noise) - data.End(noise));
    };
    EXPECT_NEAR(std::log2(error(1280, true) / error(2560, true)), 2, 0.25) << noise;
    EXPECT_NEAR(std::log2(error(160, false) / error(320, false)), 1, 0.25) << noise;
    EXPECT_LT(error(12, true), error(30, false)) << noise;
    EXPECT_LT(error(12, true), 0.25 * error(12, false)) << noise;
  }
}

// The whole solver on bf16 latents against the same steps written out in f64, and against the exact end.
TEST(MultistepSolverTest, MatchesAPlainSolverAndBeatsEulerAtThirtySteps) {
  const NormalData data;
  constexpr int64_t kRows = 6;
  constexpr int64_t kCols = 48;
  std::vector<bf16> noise;
  for (int64_t i = 0; i < kRows * kCols; ++i) {
    noise.push_back(ToBf16(static_cast<float>(i) / (kRows * kCols) * 5.0f - 2.5f));
  }
  // Mean square distance from the end of the flow.
  const auto run = [&](int steps, bool multistep, std::vector<bf16>* latents, double* worst) {
    const std::vector<float> times = TimestepSchedule(steps, 3.5f);
    *latents = noise;
    std::vector<double> plain;
    for (const bf16 x : noise) plain.push_back(ToFloat(x));
    std::vector<double> previous(plain.size());
    std::vector<bf16> velocity(plain.size());
    const MatrixView<bf16> view(latents->data(), kRows, kCols);
    const ConstMatrixView<bf16> velocity_view(velocity.data(), kRows, kCols);
    MultistepSolver solver;
    for (int i = 0; i < steps; ++i) {
      const double t = times[i];
      const double next = times[i + 1];
      for (size_t k = 0; k < plain.size(); ++k) {
        velocity[k] = ToBf16(static_cast<float>(data.Velocity(ToFloat((*latents)[k]), t)));
        const double clean = data.Clean(plain[k], t);
        double estimate = clean;
        if (i > 1 && i + 1 < steps) {
          const double lambda[] = {std::log((1 - times[i - 1]) / double{times[i - 1]}), std::log((1 - t) / t),
                                   std::log((1 - next) / next)};
          const double r = (lambda[1] - lambda[0]) / (lambda[2] - lambda[1]);
          estimate = (1 + 1 / (2 * r)) * clean - 1 / (2 * r) * previous[k];
          plain[k] = next / t * plain[k] - (1 - next) * (std::exp(-(lambda[2] - lambda[1])) - 1) * estimate;
        } else {
          plain[k] += (next - t) * (plain[k] - clean) / t;
        }
        previous[k] = clean;
      }
      if (multistep) {
        solver.Step(velocity_view, times[i], times[i + 1], view);
      } else {
        EulerStep(velocity_view, times[i] - times[i + 1], view);
      }
    }
    *worst = 0;
    double sum = 0;
    for (size_t k = 0; k < plain.size(); ++k) {
      *worst = std::max(*worst, std::abs(plain[k] - ToFloat((*latents)[k])));
      sum += std::pow(ToFloat((*latents)[k]) - data.End(ToFloat(noise[k])), 2);
    }
    return std::sqrt(sum / static_cast<double>(plain.size()));
  };
  std::vector<bf16> latents;
  double worst = 0;
  const double multistep = run(12, true, &latents, &worst);
  // Half a bf16 step of values between 2 and 4 is 2^-7. Latents and velocities of the last few steps are
  // rounded so; a first-order step in place of a second-order one is off by ten times as much.
  EXPECT_LT(worst, 4.0 / 128);
  std::vector<bf16> repeated;
  run(12, true, &repeated, &worst);
  EXPECT_EQ(repeated, latents);
  const double euler = run(30, false, &latents, &worst);
  EXPECT_LT(multistep, euler);
}

}  // namespace
}  // namespace lancet
