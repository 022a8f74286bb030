// Two ranks with a CUDA device each, as processes, over the nano checkpoint: how the devices reach each
// other, captured passes and company change no byte of a request. Skips where there are fewer than two
// devices.

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/status_macros.h"
#include "kernels/cuda/cuda_context.h"
#include "tests/worker/collective/rank_processes.h"
#include "tests/worker/engine/engine_testing.h"

namespace lancet {
namespace {

struct Outcome {
  std::vector<int32_t> tokens;
  std::vector<RgbImage> pictures;  // previews, then the picture; of rank 0

  friend bool operator==(const Outcome&, const Outcome&) = default;
};
using Outcomes = std::map<uint64_t, Outcome>;

// Asked in a process of its own: this one forks ranks, so it must not know CUDA.
int Devices() {
  RankProcess process([]() -> absl::Status { return absl::UnknownError(absl::StrCat(CudaDeviceCount())); });
  int count = 0;
  return absl::SimpleAtoi(process.Join().message(), &count) ? count : 0;
}

// Small and large pictures (one so large that its two branches take turns), an edit, answers.
std::vector<RequestPlan> Plans() {
  std::vector<RequestPlan> plans = {MakePlan(1, 7),        MakePlan(2, 8, 17, 16), MakePlan(3, 9, 40, 32),
                                    MakeAnswerPlan(4, 10), MakeAnswerPlan(5, 11),  MakeEditPlan(6, 12)};
  for (RequestPlan& plan : plans) plan.sampler.num_steps = 6;
  return plans;
}

// All plans at once: each iteration takes the next work of every request.
absl::Status Run(Engine& engine, const std::vector<RequestPlan>& plans, Outcomes& outcomes) {
  std::map<uint64_t, std::vector<Work>> left;
  for (const RequestPlan& plan : plans) {
    LANCET_RETURN_IF_ERROR(engine.Admit(plan));
    left[plan.request_id] = AllWork(plan);
    for (Work& work : left[plan.request_id]) {
      if (work.kind == WorkKind::kDenoise && work.index == 3) work.preview = PreviewMethod::kVae;
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
    LANCET_ASSIGN_OR_RETURN(std::vector<WorkResult> results, engine.Iterate(batch));
    for (WorkResult& result : results) {
      Outcome& outcome = outcomes[result.request_id];
      if (result.token.has_value()) outcome.tokens.push_back(result.token->id);
      if (result.preview.has_value()) outcome.pictures.push_back(*std::move(result.preview));
      if (result.image.has_value()) outcome.pictures.push_back(*std::move(result.image));
    }
  }
  for (const RequestPlan& plan : plans) LANCET_RETURN_IF_ERROR(engine.Release(plan.request_id));
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Engine>> Load(const Checkpoint& checkpoint, int rank,
                                             DeviceTransport transport, bool graphs) {
  EngineOptions options;
  options.device = DeviceKind::kCuda;
  options.rank = rank;
  options.world_size = 2;
  options.cuda_graphs = graphs;
  options.device_transport = transport;
  options.max_latents = 1536;
  options.max_patches = 64;
  options.cache_bytes = int64_t{64} << 20;
  options.collective_timeout = absl::Seconds(60);
  return Engine::Load(checkpoint, options);
}

absl::Status Compare(const Outcomes& expected, const Outcomes& got, const std::string& what) {
  for (const auto& [id, outcome] : expected) {
    const auto found = got.find(id);
    if (found == got.end() || !(found->second == outcome)) {
      return absl::InternalError(absl::StrCat("request ", id, " is other bytes ", what));
    }
  }
  return absl::OkStatus();
}

absl::Status RunRank(int rank, const std::string& segment) {
  const auto checkpoint = OpenNano();
  ShmOptions shm;
  shm.segment_name = segment;
  shm.rank = rank;
  shm.world_size = 2;
  shm.capacity_floats = 1 << 16;
  shm.create_deadline = absl::Now() + absl::Seconds(60);
  LANCET_ASSIGN_OR_RETURN(const auto host, ShmCollective::Create(shm));
  Outcomes alone;
  {
    // Plain sums of whole passes, moved by NCCL.
    LANCET_ASSIGN_OR_RETURN(const auto engine,
                            Load(*checkpoint, rank, DeviceTransport::kNccl, /*graphs=*/false));
    LANCET_RETURN_IF_ERROR(engine->Attach(host.get()));
    for (const RequestPlan& plan : Plans()) LANCET_RETURN_IF_ERROR(Run(*engine, {plan}, alone));
  }
  for (const auto& [id, outcome] : alone) {
    if (outcome.tokens.empty() && outcome.pictures.size() != (rank == 0 ? 3u : 0u)) {
      return absl::InternalError(
          absl::StrCat("request ", id, " came to ", outcome.pictures.size(), " pictures"));
    }
  }
  LANCET_ASSIGN_OR_RETURN(const auto engine,
                          Load(*checkpoint, rank, DeviceTransport::kPeerMemory, /*graphs=*/true));
  // A second epoch works like the first.
  for (int epoch = 0; epoch < 2; ++epoch) {
    LANCET_RETURN_IF_ERROR(engine->Attach(host.get()));
    Outcomes one_by_one;
    for (const RequestPlan& plan : Plans()) LANCET_RETURN_IF_ERROR(Run(*engine, {plan}, one_by_one));
    LANCET_RETURN_IF_ERROR(Compare(alone, one_by_one, "over peer memory, with graphs"));
    for (int round = 0; round < 2; ++round) {
      Outcomes together;
      LANCET_RETURN_IF_ERROR(Run(*engine, Plans(), together));
      LANCET_RETURN_IF_ERROR(Compare(alone, together, "in company"));
    }
  }
  return host->Barrier(absl::Now() + absl::Seconds(60));
}

TEST(EngineRanksCudaTest, TransportGraphsAndCompanyChangeNoByte) {
  if (const int devices = Devices(); devices < 2) {
    GTEST_SKIP() << "two ranks want a CUDA device each; there are " << devices;
  }
  const std::string segment = UniqueSegmentName();
  RankProcess first([&] { return RunRank(0, segment); });
  RankProcess second([&] { return RunRank(1, segment); });
  for (RankProcess* process : {&first, &second}) {
    const absl::Status status = process->Join();
    EXPECT_TRUE(status.ok()) << status;
  }
}

}  // namespace
}  // namespace lancet
