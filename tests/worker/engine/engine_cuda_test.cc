// The engine on a CUDA device, over the nano checkpoint: captured passes and company change no byte of a
// request. Skips where there is no device.

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <vector>

#include "common/plan_resume.h"
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

  Engine& engine() { return *engine_; }

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

// Executes all work of a plan alone; with a snapshot after every step.
std::vector<WorkResult> RunAlone(CudaEngine& cuda, const RequestPlan& plan) {
  std::vector<WorkResult> all;
  EXPECT_TRUE(cuda.engine().Admit(plan).ok());
  for (Work work : AllWork(plan)) {
    work.snapshot = work.kind == WorkKind::kDenoise;
    auto results = cuda.engine().Iterate({work});
    EXPECT_TRUE(results.ok()) << results.status();
    if (results.ok()) all.push_back(std::move(results->front()));
  }
  EXPECT_TRUE(cuda.engine().Release(plan.request_id).ok());
  return all;
}

TEST(EngineCudaTest, RequestsGoOnFromSnapshotsAndBehindTokens) {
  if (CudaDeviceCount() == 0) GTEST_SKIP() << "no CUDA device";
  const auto checkpoint = OpenNano();
  CudaEngine first(*checkpoint, /*graphs=*/true);
  CudaEngine second(*checkpoint, /*graphs=*/true);
  std::vector<RequestPlan> plans = Plans();
  plans[3].answer->max_new_tokens = plans[4].answer->max_new_tokens = 12;
  plans[4].answer->temperature = 0.8f;
  for (const RequestPlan& plan : plans) {
    const std::vector<WorkResult> undisturbed = RunAlone(first, plan);
    std::vector<int32_t> tokens;
    for (const WorkResult& result : undisturbed) {
      if (result.token.has_value()) tokens.push_back(result.token->id);
      if (!result.snapshot.has_value()) continue;
      ASSERT_TRUE(SnapshotFits(plan, *result.snapshot));
      RequestPlan resumed = plan;
      resumed.snapshot = result.snapshot;
      EXPECT_EQ(RunAlone(second, resumed).back().image, undisturbed.back().image)
          << "request " << plan.request_id << " from step " << result.snapshot->step;
    }
    EXPECT_EQ(tokens.empty(), plan.draws());
    for (size_t count = 1; count < tokens.size(); ++count) {
      std::vector<int32_t> again(tokens.begin(), tokens.begin() + static_cast<int64_t>(count));
      for (const WorkResult& result :
           RunAlone(second, ResumeAnswer(plan, absl::MakeConstSpan(tokens).first(count)))) {
        if (result.token.has_value()) again.push_back(result.token->id);
      }
      EXPECT_EQ(again, tokens) << "request " << plan.request_id << " behind " << count << " tokens";
    }
  }
}

}  // namespace
}  // namespace lancet
