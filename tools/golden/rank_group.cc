#include "tools/golden/rank_group.h"

#include <mutex>
#include <thread>
#include <utility>

#include "absl/time/time.h"
#include "common/status_macros.h"
#include "worker/collective/local_collective.h"
#include "worker/collective/shm_collective.h"

namespace lancet {
namespace {

absl::Status RunPlan(Engine& engine, const RequestPlan& plan, RgbImage* image) {
  LANCET_RETURN_IF_ERROR(engine.Admit(plan));
  std::vector<Work> work;
  for (size_t i = 0; i < plan.prefix.size(); ++i) {
    work.push_back({plan.request_id, WorkKind::kPrefill, static_cast<int32_t>(i), PreviewMethod::kNone});
  }
  for (int32_t step = 0; step < plan.sampler.num_steps; ++step) {
    work.push_back({plan.request_id, WorkKind::kDenoise, step, PreviewMethod::kNone});
  }
  work.push_back({plan.request_id, WorkKind::kDecode, 0, PreviewMethod::kNone});
  LANCET_ASSIGN_OR_RETURN(std::vector<WorkResult> results, engine.Iterate(work));
  if (results.back().image.has_value()) *image = *std::move(results.back().image);
  return engine.Release(plan.request_id);
}

}  // namespace

absl::Status RunOnRanks(int world_size, size_t capacity_floats,
                        const std::function<absl::Status(int rank, Collective& collective)>& fn) {
  if (world_size == 1) {
    LANCET_ASSIGN_OR_RETURN(const auto collective, SingleRankCollective::Create(capacity_floats));
    return fn(0, *collective);
  }
  LANCET_ASSIGN_OR_RETURN(const auto collectives,
                          ShmCollective::CreateGroupInProcess(world_size, capacity_floats));
  std::mutex mu;
  absl::Status first_failure;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < world_size; ++rank) {
    threads.emplace_back([&, rank] {
      const absl::Status status = fn(rank, *collectives[rank]);
      if (status.ok()) return;
      {
        const std::lock_guard<std::mutex> lock(mu);
        if (first_failure.ok()) first_failure = status;
      }
      collectives[rank]->Abort(status);
    });
  }
  for (std::thread& thread : threads) thread.join();
  return first_failure;
}

absl::StatusOr<std::unique_ptr<RankGroup>> RankGroup::Load(const Checkpoint& checkpoint, int world_size,
                                                           EngineOptions options) {
  auto group = std::make_unique<RankGroup>();
  for (int rank = 0; rank < world_size; ++rank) {
    options.rank = rank;
    options.world_size = world_size;
    LANCET_ASSIGN_OR_RETURN(auto engine, Engine::Load(checkpoint, options));
    group->engines_.push_back(std::move(engine));
  }
  return group;
}

absl::StatusOr<RgbImage> RankGroup::Run(const RequestPlan& plan, const std::vector<EngineTrace*>& traces) {
  RgbImage image;
  const auto run_rank = [&](int rank, Collective& collective) -> absl::Status {
    Engine& engine = *engines_[rank];
    LANCET_RETURN_IF_ERROR(engine.Attach(&collective));
    engine.set_trace(traces[rank]);
    const absl::Status status = RunPlan(engine, plan, rank == 0 ? &image : nullptr);
    engine.set_trace(nullptr);
    return status;
  };
  LANCET_RETURN_IF_ERROR(RunOnRanks(world_size(), engines_[0]->collective_capacity(), run_rank));
  return image;
}

}  // namespace lancet
