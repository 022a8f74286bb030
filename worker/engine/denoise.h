// The sampler: timestep schedule, classifier-free guidance with global renormalisation, Euler steps, and a
// second-order solver for fewer steps. Latents stay bf16; schedule, guidance and Euler steps round every
// operation as in the reference.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "common/bf16.h"
#include "common/request_plan.h"
#include "common/tensor_view.h"

namespace lancet {

// Times of n steps: t[0] = 1 > ... > t[n] = 0, t = S s / (1 + (S - 1) s) for evenly spaced s and shift S;
// f32. Step i goes from t[i] to t[i + 1].
std::vector<float> TimestepSchedule(int32_t num_steps, float timestep_shift);

// Whether a step that starts at time t needs the unconditional velocity.
bool IsGuided(const SamplerParams& sampler, float t);

// velocity = w * min(1, |velocity| / |w|), w = unconditional + scale * (velocity - unconditional), norms over
// all values. Both [n, 48]; velocity is replaced. Returns the factor.
float ApplyGuidance(float guidance_scale, ConstMatrixView<bf16> unconditional, MatrixView<bf16> velocity);

// latents -= velocity * dt.
void EulerStep(ConstMatrixView<bf16> velocity, float dt, MatrixView<bf16> latents);

// The estimate of the clean latents from latents at time t: latents - t * velocity, f32 [n, 48].
std::vector<float> EstimateClean(ConstMatrixView<bf16> latents, ConstMatrixView<bf16> velocity, float t);

// How a step of DPM-Solver++(2M) from time t to next_t < t combines what it has:
//   x' = latents * x + clean * D + previous * D_previous,  D = x - t v
// With x_t = (1 - t) x_0 + t noise and lambda = log((1 - t) / t), a step of h = lambda' - lambda after one of
// h_previous is (Lu et al., DPM-Solver++, arXiv:2211.01095, algorithm 2, with alpha = 1 - t, sigma = t)
//   x' = (t'/t) x + ((1 - t') - (1 - t) t'/t) ((1 + q) D - q D_previous),  q = h / (2 h_previous)
// and (1 - t') - (1 - t) t'/t = 1 - t'/t. First order (q = 0) is an Euler step in exact arithmetic.
struct SolverWeights {
  double latents = 0;
  double clean = 0;
  double previous = 0;
};

// lambda is infinite at both ends: q is 0 without a previous step, after a step from t = 1 (h_previous is
// infinite), and for the step to 0 (h is infinite; x' is D then).
//   previous_t: where the step before started, > t; nullopt for the first
SolverWeights MultistepWeights(std::optional<float> previous_t, float t, float next_t);

// The second-order multistep solver of one request. The first-order step to 0 limits it when that step is
// long compared with the data's deviation: under shift 3.5, twelve steps (the last from t = .24) end closer
// than thirty Euler steps for normal data of deviation .8 or more, and farther for .6 or less.
class MultistepSolver {
 public:
  // One step from t to next_t, 0 <= next_t < t <= 1; latents and velocity are [n, 48] with the same n in
  // every step, each starting where the one before ended. Estimates are f32, x' is summed in f32 and rounded
  // to bf16 once.
  void Step(ConstMatrixView<bf16> velocity, float t, float next_t, MatrixView<bf16> latents);

  // What the next step needs besides the latents: the estimate of the step before (empty before the first),
  // and, to go on elsewhere, where that one started.
  const std::vector<float>& previous_clean() const { return previous_clean_; }
  void Resume(std::vector<float> previous_clean, float previous_t) {
    previous_clean_ = std::move(previous_clean);
    previous_t_ = previous_t;
  }

 private:
  std::vector<float> previous_clean_;  // D of the step before
  std::optional<float> previous_t_;    // where it started
};

}  // namespace lancet
