// What the trunk loses when its ranks add over TCP on the loopback interface instead of through shared
// memory: the same passes of layers of the release's dimensions, random weights, by either transport in turn.
// Ranks are threads of this process with a compute thread each, bound to a processor of their own.
#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "bench/collective_group.h"
#include "bench/release_layer.h"
#include "common/status_macros.h"
#include "kernels/kernel_context.h"
#include "worker/loader/shard_plan.h"
#include "worker/model/pass.h"
#include "worker/model/transformer.h"

ABSL_FLAG(int, ranks, 2, "ranks, 2 to 8");
ABSL_FLAG(int, layers, 4, "trunk layers; more than fit the cache, as in the whole model");
ABSL_FLAG(int, repetitions, 15, "passes by each transport, to take medians of");
ABSL_FLAG(int, cached, 700, "tokens in the cache before the pass");

namespace lancet {
namespace {

constexpr absl::Duration kTimeout = absl::Minutes(10);

double Quantile(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  return values[std::lround(q * static_cast<double>(values.size() - 1))];
}

// Rows that share a pass: a token of an answer, or a picture of 16 latents a side with its two markers.
enum class Rows { kToken, kPicture };

struct Transports {
  CollectiveGroup shm;
  CollectiveGroup tcp;
};

// Milliseconds of each repetition.
struct Times {
  std::vector<double> shm;
  std::vector<double> tcp;
};

// One rank: its share of the weights, and the same passes as the other ranks make.
class Rank {
 public:
  static absl::StatusOr<std::unique_ptr<Rank>> Create(const RandomStateDict& weights,
                                                      const ModelConfig& config, int rank, int world_size) {
    LANCET_ASSIGN_OR_RETURN(std::unique_ptr<KernelContext> ctx, KernelContext::CreateCpu({.threads = 1}));
    ctx->BindCallingThread();
    LANCET_ASSIGN_OR_RETURN(const ShardPlan plan, MakeShardPlan(config, rank, world_size));
    LANCET_ASSIGN_OR_RETURN(TrunkWeights own,
                            TrunkWeights::Load(*ctx, weights, config, plan, /*with_head=*/false));
    return std::unique_ptr<Rank>(new Rank(std::move(ctx), config, plan, std::move(own)));
  }

  absl::StatusOr<Times> Run(Rows rows, Collective& shm, Collective& tcp) {
    KvCache cache(config_.num_layers, absl::GetFlag(FLAGS_cached), plan_.kv_cols());
    for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
      for (int64_t row = 0; row < absl::GetFlag(FLAGS_cached); ++row) {
        std::fill_n(cache.KeyRow(layer, row), plan_.kv_cols(), ToBf16(0.1f));
        std::fill_n(cache.ValueRow(layer, row), plan_.kv_cols(), ToBf16(0.1f));
      }
    }
    cache.Advance(absl::GetFlag(FLAGS_cached));
    Times times;
    // The first pass by each warms up. Who goes first changes.
    for (int repetition = 0; repetition <= absl::GetFlag(FLAGS_repetitions); ++repetition) {
      for (const bool by_tcp : {repetition % 2 == 0, repetition % 2 != 0}) {
        Collective& collective = by_tcp ? tcp : shm;
        KvCache own(config_.num_layers, 1, plan_.kv_cols(), &cache);  // an answer's pass adds to it
        Pass pass = MakePass(rows, own);
        Fill(pass.rows());
        LANCET_RETURN_IF_ERROR(collective.Barrier(absl::Now() + kTimeout));
        const absl::Time start = absl::Now();
        LANCET_RETURN_IF_ERROR(transformer_.Forward(pass, collective, kTimeout));
        if (repetition == 0) continue;
        (by_tcp ? times.tcp : times.shm).push_back(absl::ToDoubleMilliseconds(absl::Now() - start));
      }
    }
    return times;
  }

 private:
  Rank(std::unique_ptr<KernelContext> ctx, const ModelConfig& config, const ShardPlan& plan,
       TrunkWeights weights)
      : ctx_(std::move(ctx)),
        config_(config),
        plan_(plan),
        transformer_(*ctx_, config, plan, std::move(weights), /*max_rows=*/258) {}

  Pass MakePass(Rows rows, KvCache& cache) const {
    const int32_t position = absl::GetFlag(FLAGS_cached);
    Pass pass;
    if (rows == Rows::kToken) {
      pass.AddAnswer(&cache, position);
    } else {
      std::vector<int32_t> ids(256 + 2);
      for (size_t i = 0; i < ids.size(); ++i) ids[i] = position + static_cast<int32_t>(i % 16);
      pass.AddLatents(&cache, {ids, ids, ids}, /*append=*/false);
    }
    pass.Finish();
    return pass;
  }
  // The same values on every rank.
  void Fill(int64_t rows) {
    std::mt19937 random(2);
    std::normal_distribution<float> normal;
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < config_.hidden_size; ++c)
        transformer_.stream().row(r)[c] = ToBf16(normal(random));
    }
  }

  const std::unique_ptr<KernelContext> ctx_;
  const ModelConfig config_;
  const ShardPlan plan_;
  Transformer transformer_;
};

// Where a rank has a processor for itself.
void Pin(int rank) {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) != 0 || CPU_COUNT(&set) < absl::GetFlag(FLAGS_ranks)) return;
  int skip = rank;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &set) || skip-- > 0) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    pthread_setaffinity_np(pthread_self(), sizeof(one), &one);
    return;
  }
}

void Print(absl::string_view what, const Times& times) {
  std::vector<double> ratios;
  for (size_t i = 0; i < times.shm.size(); ++i) ratios.push_back(times.tcp[i] / times.shm[i]);
  std::cout << absl::StrFormat("| %s | %.2f ms | %.2f ms | %.4f (%.4f, %.4f) |\n", what,
                               Quantile(times.shm, 0.5), Quantile(times.tcp, 0.5), Quantile(ratios, 0.5),
                               Quantile(ratios, 0.25), Quantile(ratios, 0.75));
}

absl::Status Run() {
  const int world_size = absl::GetFlag(FLAGS_ranks);
  if (world_size < 2 || world_size > 8) return absl::InvalidArgumentError("--ranks is outside 2 to 8");
  if (absl::GetFlag(FLAGS_repetitions) < 1) return absl::InvalidArgumentError("--repetitions is below 1");
  if (absl::GetFlag(FLAGS_layers) < 1) return absl::InvalidArgumentError("--layers is below 1");
  if (absl::GetFlag(FLAGS_cached) < 1) return absl::InvalidArgumentError("--cached is below 1");
  const ModelConfig config = ReleaseLayerConfig(absl::GetFlag(FLAGS_layers));
  const RandomStateDict weights = MakeRelease(config);
  const auto capacity = static_cast<size_t>(kRowChunk * config.hidden_size);
  Transports transports;
  LANCET_ASSIGN_OR_RETURN(transports.shm, MakeShmGroup(world_size, capacity));
  LANCET_ASSIGN_OR_RETURN(transports.tcp, MakeTcpGroup(world_size, capacity));

  std::vector<absl::Status> failures(world_size);
  Times token, picture;  // of rank 0
  const auto run_rank = [&](int rank) -> absl::Status {
    Pin(rank);
    Collective& shm = *transports.shm[rank];
    Collective& tcp = *transports.tcp[rank];
    LANCET_ASSIGN_OR_RETURN(const std::unique_ptr<Rank> own, Rank::Create(weights, config, rank, world_size));
    LANCET_ASSIGN_OR_RETURN(Times token_times, own->Run(Rows::kToken, shm, tcp));
    LANCET_ASSIGN_OR_RETURN(Times picture_times, own->Run(Rows::kPicture, shm, tcp));
    if (rank == 0) {
      token = std::move(token_times);
      picture = std::move(picture_times);
    }
    return absl::OkStatus();
  };
  std::vector<std::thread> threads;
  for (int rank = 0; rank < world_size; ++rank) {
    threads.emplace_back([&, rank] {
      failures[rank] = run_rank(rank);
      if (failures[rank].ok()) return;
      transports.shm[rank]->Abort(failures[rank]);
      transports.tcp[rank]->Abort(failures[rank]);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const absl::Status& failure : failures) LANCET_RETURN_IF_ERROR(failure);
  std::cout << absl::StrFormat("%d layers of the release's dimensions, %d ranks, behind %d cached tokens\n\n",
                               config.num_layers, world_size, absl::GetFlag(FLAGS_cached))
            << "| | shared memory | TCP on loopback | ratio (p25, p75) |\n|---|---|---|---|\n";
  Print("a token", token);
  Print("258 rows", picture);
  return absl::OkStatus();
}

}  // namespace
}  // namespace lancet

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("transport_bench [--ranks N] [--layers N] [--repetitions N] [--cached N]");
  absl::ParseCommandLine(argc, argv);
  if (const absl::Status status = lancet::Run(); !status.ok()) {
    std::cerr << "transport_bench: " << status << "\n";
    return 1;
  }
}
