// The engine's ranks as threads over the nano checkpoint, and made-up requests of every kind.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "worker/collective/local_collective.h"
#include "worker/collective/shm_collective.h"
#include "worker/engine/engine.h"
#include "worker/engine/warm_up.h"

namespace lancet {

inline std::unique_ptr<Checkpoint> OpenNano() {
  CheckpointPaths overrides;
  overrides.model_dir = LANCET_TEST_DATA "/nano";
  const auto paths = ResolveCheckpoint(overrides);
  EXPECT_TRUE(paths.ok()) << paths.status();
  auto checkpoint = Checkpoint::Open(*paths);
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
  return *std::move(checkpoint);
}

inline Positions Line(int32_t first, int64_t count) {
  Positions positions;
  for (int64_t i = 0; i < count; ++i) {
    for (auto* axis : {&positions.t, &positions.h, &positions.w})
      axis->push_back(first + static_cast<int32_t>(i));
  }
  return positions;
}

inline RequestPlan MakePlan(uint64_t id, uint64_t seed, int32_t height = 2, int32_t width = 3) {
  RequestPlan plan;
  plan.request_id = id;
  plan.seed = seed;
  plan.prefix.push_back({{301, 5, 6, 7}, Line(0, 4), true, true});
  plan.prefix.push_back({{8, 9, 10}, Line(4, 3), true, false});
  plan.prefix.push_back({{302, 198}, Line(7, 2), true, true});
  plan.target.latent_height = height;
  plan.target.latent_width = width;
  plan.target.start_token_id = 309;
  plan.target.end_token_id = 310;
  plan.target.conditional = Line(9, plan.target.num_latents() + 2);
  plan.target.unconditional = Line(6, plan.target.num_latents() + 2);
  plan.sampler.num_steps = 3;
  return plan;
}

// A picture of noise that depends on `seed`.
inline RgbImage NoisePicture(int32_t width, int32_t height, uint32_t seed) {
  RgbImage image{width, height, std::vector<uint8_t>(int64_t{width} * height * 3)};
  for (uint8_t& byte : image.pixels) {
    seed = seed * 1664525u + 1013904223u;
    byte = static_cast<uint8_t>(seed >> 24);
  }
  return image;
}

inline PrefixBlock VisualBlock(PrefixKind kind, int32_t first, int64_t cells) {
  PrefixBlock block;
  block.kind = kind;
  block.token_ids = {309, 310};
  block.positions = Line(first, cells + 2);
  return block;
}

// MakePlan with a picture of 2 x 2 tokens for the tower and one of the target's size as condition.
inline RequestPlan MakeEditPlan(uint64_t id, uint64_t seed) {
  RequestPlan plan = MakePlan(id, seed);
  plan.vision_image = NoisePicture(56, 56, static_cast<uint32_t>(seed));
  plan.condition_image = NoisePicture(48, 32, static_cast<uint32_t>(seed) + 1);
  plan.prefix.insert(plan.prefix.begin() + 1,
                     {VisualBlock(PrefixKind::kVision, 4, 4), VisualBlock(PrefixKind::kLatents, 10, 6)});
  return plan;
}

inline RequestPlan MakeAnswerPlan(uint64_t id, uint64_t seed, float temperature = 0) {
  RequestPlan plan;
  plan.request_id = id;
  plan.seed = seed;
  plan.vision_image = NoisePicture(84, 56, static_cast<uint32_t>(seed));
  plan.prefix.push_back({{301, 5, 6, 7}, Line(0, 4), true, true});
  plan.prefix.push_back(VisualBlock(PrefixKind::kVision, 4, 6));
  plan.prefix.push_back({{8, 9, 10, 302}, Line(12, 4), true, true});
  plan.answer = AnswerParams{.max_new_tokens = 6,
                             .temperature = temperature,
                             .first_token_id = 198,
                             .first_position = 16,
                             .stop_token_id = 302,
                             .num_valid_tokens = 322};
  return plan;
}

// Ranks as threads, every rank doing the same.
class Group {
 public:
  Group(const Checkpoint& checkpoint, int world_size, int threads = 1,
        const LinearPolicyOptions& linears = {}, DeviceKind device = DeviceKind::kCpu) {
    for (int rank = 0; rank < world_size; ++rank) {
      EngineOptions options;
      options.rank = rank;
      options.world_size = world_size;
      options.threads = threads;
      options.linears = linears;
      options.device = device;
      options.max_latents = 64;
      options.max_patches = 64;
      auto engine = Engine::Load(checkpoint, options);
      EXPECT_TRUE(engine.ok()) << engine.status();
      engines_.push_back(*std::move(engine));
    }
    const size_t capacity = engines_[0]->collective_capacity();
    if (world_size == 1) {
      collectives_.push_back(*SingleRankCollective::Create(capacity));
    } else {
      auto group = ShmCollective::CreateGroupInProcess(world_size, capacity);
      EXPECT_TRUE(group.ok()) << group.status();
      for (auto& collective : *group) collectives_.push_back(std::move(collective));
    }
  }

  void OnEveryRank(const std::function<void(int rank, Engine& engine)>& fn) {
    std::vector<std::thread> threads;
    for (size_t rank = 0; rank < engines_.size(); ++rank) {
      threads.emplace_back([&, rank] { fn(static_cast<int>(rank), *engines_[rank]); });
    }
    for (std::thread& thread : threads) thread.join();
  }

  void Attach() {
    OnEveryRank([&](int rank, Engine& engine) { EXPECT_TRUE(engine.Attach(collectives_[rank].get()).ok()); });
  }

  // Executes the batches of work one Iterate each, after admitting the plans; rank 0's results.
  std::vector<WorkResult> Run(const std::vector<RequestPlan>& plans,
                              const std::vector<std::vector<Work>>& batches) {
    std::vector<WorkResult> all;
    OnEveryRank([&](int rank, Engine& engine) {
      for (const RequestPlan& plan : plans) EXPECT_TRUE(engine.Admit(plan).ok());
      for (const std::vector<Work>& batch : batches) {
        auto results = engine.Iterate(batch);
        ASSERT_TRUE(results.ok()) << results.status();
        if (rank == 0) {
          for (WorkResult& result : *results) all.push_back(std::move(result));
        }
      }
      for (const RequestPlan& plan : plans) EXPECT_TRUE(engine.Release(plan.request_id).ok());
    });
    return all;
  }

  Engine& engine(int rank) { return *engines_[rank]; }

 private:
  std::vector<std::unique_ptr<Engine>> engines_;
  std::vector<std::unique_ptr<Collective>> collectives_;
};

inline RgbImage Draw(Group& group, const RequestPlan& plan) {
  const std::vector<WorkResult> results = group.Run({plan}, {AllWork(plan)});
  EXPECT_TRUE(results.back().image.has_value());
  return results.back().image.value_or(RgbImage{});
}

}  // namespace lancet
