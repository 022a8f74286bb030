// Requests of every kind that share passes.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <random>
#include <utility>
#include <vector>

#include "tests/worker/engine/engine_testing.h"

namespace lancet {

// What a client gets.
struct Outcome {
  std::vector<int32_t> tokens;
  std::vector<RgbImage> previews;
  RgbImage image;

  void Add(WorkResult result) {
    if (result.token.has_value()) tokens.push_back(result.token->id);
    if (result.preview.has_value()) previews.push_back(*std::move(result.preview));
    if (result.image.has_value()) image = *std::move(result.image);
  }
  friend bool operator==(const Outcome&, const Outcome&) = default;
};

// The work of a plan with text cut at random.
inline std::vector<Work> CutWork(const RequestPlan& plan, std::mt19937& random) {
  std::vector<Work> cut;
  for (Work work : AllWork(plan)) {
    if (work.kind == WorkKind::kDenoise) work.preview = PreviewMethod::kLatentRgb;
    const bool text = work.kind == WorkKind::kPrefill && plan.prefix[work.index].kind == PrefixKind::kText;
    if (!text) {
      cut.push_back(work);
      continue;
    }
    const auto rows = static_cast<int32_t>(plan.prefix[work.index].rows());
    for (int32_t begin = 0; begin < rows; begin += work.count) {
      work.begin = begin;
      work.count = 1 + static_cast<int32_t>(random() % (rows - begin));
      cut.push_back(work);
    }
  }
  return cut;
}

inline std::vector<RequestPlan> MixedPlans() {
  std::vector<RequestPlan> plans = {MakePlan(1, 7),        MakePlan(2, 8, 4, 2),  MakeEditPlan(3, 9),
                                    MakeAnswerPlan(4, 10), MakeAnswerPlan(5, 11), MakeAnswerPlan(6, 12, 0.8f),
                                    MakeEditPlan(7, 13),   MakePlan(8, 14)};
  plans[6].sampler.solver = Solver::kDpmpp2m;
  plans[6].sample_condition = true;
  plans[7].sampler.guidance_scale = 1.0f;
  return plans;
}

// Runs every plan alone, then all of them in `mixes` random orders: a request's bytes must be the same.
inline void ExpectMixesChangeNothing(Group& group, uint32_t mixes) {
  const std::vector<RequestPlan> plans = MixedPlans();
  std::map<uint64_t, Outcome> alone;
  for (const RequestPlan& plan : plans) {
    std::vector<Work> work = AllWork(plan);
    for (Work& item : work) {
      if (item.kind == WorkKind::kDenoise) item.preview = PreviewMethod::kLatentRgb;
    }
    for (WorkResult& result : group.Run({plan}, {work})) alone[plan.request_id].Add(std::move(result));
  }
  for (const auto& [id, outcome] : alone) {
    EXPECT_TRUE(outcome.image.width > 0 || !outcome.tokens.empty()) << "request " << id;
  }
  for (uint32_t seed = 0; seed < mixes; ++seed) {
    std::mt19937 random(seed);
    std::map<uint64_t, std::vector<Work>> left;
    for (const RequestPlan& plan : plans) left[plan.request_id] = CutWork(plan, random);
    std::vector<std::vector<Work>> batches;
    while (!left.empty()) {
      std::vector<Work>& batch = batches.emplace_back();
      for (auto it = left.begin(); it != left.end();) {
        if (random() % 3 != 0) {
          batch.push_back(it->second.front());
          it->second.erase(it->second.begin());
        }
        it = it->second.empty() ? left.erase(it) : std::next(it);
      }
      std::shuffle(batch.begin(), batch.end(), random);
    }
    std::map<uint64_t, Outcome> mixed;
    for (WorkResult& result : group.Run(plans, batches)) mixed[result.request_id].Add(std::move(result));
    for (const auto& [id, outcome] : alone) {
      EXPECT_EQ(mixed[id].tokens, outcome.tokens) << "request " << id << ", mix " << seed;
      EXPECT_TRUE(mixed[id] == outcome) << "request " << id << ", mix " << seed;
    }
  }
}

}  // namespace lancet
