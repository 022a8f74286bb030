// The engine on a CUDA device, over the nano checkpoint: captured passes and company change no byte of a
// request. Skips where there is no device.

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <vector>

#include "kernels/cuda/cuda_context.h"
#include "tests/worker/engine/engine_testing.h"

namespace lancet {
namespace {

struct Outcome {
  std::vector<int32_t> tokens;
  std::vector<RgbImage> pictures;  // previews, then the picture

  friend bool operator==(const Outcome&, const Outcome&) = default;
};
using Outcomes = std::map<uint64_t, Outcome>;

// One rank on the device.
class CudaEngine {
 public:
  CudaEngine(const Checkpoint& checkpoint, bool graphs) {
    EngineOptions options;
    options.device = DeviceKind::kCuda;
    options.cuda_graphs = graphs;
    options.max_latents = 512;
    options.max_patches = 64;
    auto engine = Engine::Load(checkpoint, options);
    EXPECT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
    collective_ = *SingleRankCollective::Create(engine_->collective_capacity());
    EXPECT_TRUE(engine_->Attach(collective_.get()).ok());
  }

  // All plans at once: each iteration takes the next work of every request.
  void Run(const std::vector<RequestPlan>& plans, Outcomes& outcomes) {
    std::map<uint64_t, std::vector<Work>> left;
    for (const RequestPlan& plan : plans) {
      ASSERT_TRUE(engine_->Admit(plan).ok());
      left[plan.request_id] = AllWork(plan);
      for (Work& work : left[plan.request_id]) {
        if (work.kind == WorkKind::kDenoise && work.index == 4) work.preview = PreviewMethod::kLatentRgb;
      }
    }
    while (!left.empty()) {
      std::vector<Work> batch;
      for (auto it = left.begin(); it != left.end();) {
        batch.push_back(it->second.front());
        it->second.erase(it->second.begin());
        it = it->second.empty() ? left.erase(it) : std::next(it);
      }
      auto results = engine_->Iterate(batch);
      ASSERT_TRUE(results.ok()) << results.status();
      for (WorkResult& result : *results) {
        Outcome& outcome = outcomes[result.request_id];
        if (result.token.has_value()) outcome.tokens.push_back(result.token->id);
        if (result.preview.has_value()) outcome.pictures.push_back(*std::move(result.preview));
        if (result.image.has_value()) outcome.pictures.push_back(*std::move(result.image));
      }
    }
    for (const RequestPlan& plan : plans) EXPECT_TRUE(engine_->Release(plan.request_id).ok());
  }

 private:
  std::unique_ptr<Collective> collective_;
  std::unique_ptr<Engine> engine_;
};

// Small and large pictures (which have attention kernels of their own), edits, answers; both solvers.
std::vector<RequestPlan> Plans() {
  std::vector<RequestPlan> plans = {MakePlan(1, 7),         MakePlan(2, 8, 17, 16), MakePlan(3, 9, 17, 16),
                                    MakeAnswerPlan(4, 10),  MakeAnswerPlan(5, 11),  MakeEditPlan(6, 12),
                                    MakePlan(7, 13, 20, 13)};
  for (RequestPlan& plan : plans) plan.sampler.num_steps = 8;
  plans[2].sampler.solver = Solver::kDpmpp2m;
  plans[6].sampler.guidance_scale = 1.0f;
  return plans;
}

TEST(EngineCudaTest, CapturedPassesAndCompanyChangeNoByte) {
  if (CudaDeviceCount() == 0) GTEST_SKIP() << "no CUDA device";
  const auto checkpoint = OpenNano();
  Outcomes alone;
  {
    CudaEngine plain(*checkpoint, /*graphs=*/false);
    for (const RequestPlan& plan : Plans()) plain.Run({plan}, alone);
  }
  CudaEngine captured(*checkpoint, /*graphs=*/true);
  Outcomes one_by_one;
  for (const RequestPlan& plan : Plans()) captured.Run({plan}, one_by_one);
  for (const auto& [id, outcome] : alone) {
    EXPECT_TRUE(outcome.pictures.size() == 2 || !outcome.tokens.empty()) << "request " << id;
    EXPECT_TRUE(one_by_one[id] == outcome) << "request " << id << " with graphs";
  }
  // More than once: memory and graphs come back.
  for (int round = 0; round < 3; ++round) {
    Outcomes together;
    captured.Run(Plans(), together);
    for (const auto& [id, outcome] : alone) {
      EXPECT_TRUE(together[id] == outcome) << "request " << id << " in company, round " << round;
    }
  }
}

}  // namespace
}  // namespace lancet
