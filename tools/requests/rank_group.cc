#include "tools/requests/rank_group.h"

#include <mutex>
#include <thread>
#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/status_macros.h"
#include "worker/collective/local_collective.h"
#include "worker/collective/shm_collective.h"
#include "worker/engine/warm_up.h"

namespace lancet {
namespace {

constexpr absl::Duration kBarrierTimeout = absl::Minutes(10);

absl::StatusOr<std::vector<WorkResult>> IteratePieces(Engine& engine, const RequestPlan& plan) {
  std::vector<WorkResult> results;
  for (const Work& work : AllWork(plan)) {
    LANCET_ASSIGN_OR_RETURN(std::vector<WorkResult> done, engine.Iterate({work}));
    const bool ended = done[0].token.has_value() && done[0].token->last;
    results.push_back(std::move(done[0]));
    if (ended) break;
  }
  return results;
}

// Ranks that are threads take and free device memory at the same time: that may wait for the kernels of all
// devices of the process, which must not wait for this rank then.
absl::StatusOr<std::vector<WorkResult>> RunPlan(Engine& engine, const RequestPlan& plan,
                                                Collective& collective, bool in_pieces) {
  LANCET_RETURN_IF_ERROR(engine.Admit(plan));
  LANCET_RETURN_IF_ERROR(collective.Barrier(absl::Now() + kBarrierTimeout));
  LANCET_ASSIGN_OR_RETURN(std::vector<WorkResult> results,
                          in_pieces ? IteratePieces(engine, plan) : engine.Iterate(AllWork(plan)));
  LANCET_RETURN_IF_ERROR(collective.Barrier(absl::Now() + kBarrierTimeout));
  LANCET_RETURN_IF_ERROR(engine.Release(plan.request_id));
  return results;
}

std::vector<AnswerToken> Tokens(const std::vector<WorkResult>& results) {
  std::vector<AnswerToken> tokens;
  for (const WorkResult& result : results) {
    if (result.token.has_value()) tokens.push_back(*result.token);
  }
  return tokens;
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

absl::StatusOr<std::vector<WorkResult>> RankGroup::Run(const RequestPlan& plan,
                                                       const std::vector<EngineTrace*>& traces) {
  return Run(plan, traces, /*in_pieces=*/false);
}

absl::StatusOr<std::vector<WorkResult>> RankGroup::RunInPieces(const RequestPlan& plan,
                                                               const std::vector<EngineTrace*>& traces) {
  return Run(plan, traces, /*in_pieces=*/true);
}

absl::StatusOr<std::vector<WorkResult>> RankGroup::Run(const RequestPlan& plan,
                                                       const std::vector<EngineTrace*>& traces,
                                                       bool in_pieces) {
  std::vector<std::vector<WorkResult>> results(world_size());
  const auto run_rank = [&](int rank, Collective& collective) -> absl::Status {
    Engine& engine = *engines_[rank];
    LANCET_RETURN_IF_ERROR(engine.Attach(&collective));
    engine.set_trace(traces[rank]);
    absl::StatusOr<std::vector<WorkResult>> done = RunPlan(engine, plan, collective, in_pieces);
    engine.set_trace(nullptr);
    LANCET_RETURN_IF_ERROR(done.status());
    results[rank] = *std::move(done);
    return absl::OkStatus();
  };
  LANCET_RETURN_IF_ERROR(RunOnRanks(world_size(), engines_[0]->collective_capacity(), run_rank));
  for (const auto& other : results) {
    if (Tokens(other) != Tokens(results[0])) return absl::InternalError("the ranks picked different tokens");
  }
  return std::move(results[0]);
}

}  // namespace lancet
