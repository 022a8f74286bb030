// Requests of every kind that share passes: none changes another's bytes, and memory comes back.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <malloc.h>

#include <string>
#include <vector>

#include "tests/worker/engine/engine_mixing.h"

namespace lancet {
namespace {

// Sanitizers take ten times as long, and look for other mistakes than a mix of another order would bring.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr uint32_t kMixes = 1;
#else
constexpr uint32_t kMixes = 4;
#endif

class EngineMixTest : public ::testing::TestWithParam<int> {};

TEST_P(EngineMixTest, ARequestsBytesDoNotDependOnWhatElseRan) {
  const auto checkpoint = OpenNano();
  Group group(*checkpoint, GetParam());
  group.Attach();
  ExpectMixesChangeNothing(group, kMixes);
}

TEST_P(EngineMixTest, AnswersEndAndFurtherWorkDoesNothing) {
  const auto checkpoint = OpenNano();
  Group group(*checkpoint, GetParam());
  group.Attach();
  RequestPlan plan = MakeAnswerPlan(1, 10);
  const std::vector<WorkResult> all = group.Run({plan}, {AllWork(plan)});
  const size_t first = all.size() - 6;
  ASSERT_TRUE(all[first].token.has_value());
  ASSERT_TRUE(all.back().token.has_value());
  EXPECT_TRUE(all.back().token->last);  // max_new_tokens
  EXPECT_FALSE(all[first].token->last);
  // The second token as the stop token: the answer ends with it, or earlier if it came earlier.
  plan.answer->stop_token_id = all[first + 1].token->id;
  const std::vector<WorkResult> stopped = group.Run({plan}, {AllWork(plan)});
  const size_t end = all[first].token->id == plan.answer->stop_token_id ? first : first + 1;
  EXPECT_TRUE(stopped[end].token->last);
  for (size_t i = end + 1; i < stopped.size(); ++i) EXPECT_FALSE(stopped[i].token.has_value()) << i;
}

INSTANTIATE_TEST_SUITE_P(Ranks, EngineMixTest, ::testing::Values(1, 2, 3));

TEST(EngineMemoryTest, AdmissionCountsTheCacheAndReleaseGivesItBack) {
  const auto checkpoint = OpenNano();
  EngineOptions options;
  options.max_latents = 64;
  options.max_patches = 64;
  const int64_t token_bytes = 2 * 2 * 2 * 128 * 2;  // layers, keys and values, heads, head_dim, bf16
  options.cache_bytes = 40 * token_bytes;
  auto engine = *Engine::Load(*checkpoint, options);
  EXPECT_EQ(engine->limits().cache_tokens, 40);
  auto collective = *SingleRankCollective::Create(engine->collective_capacity());
  ASSERT_TRUE(engine->Attach(collective.get()).ok());
  // 4 shared, 3 + 2 conditional, 2 unconditional.
  for (uint64_t id = 0; id < 3; ++id) ASSERT_TRUE(engine->Admit(MakePlan(id, 1)).ok());
  const absl::Status refused = engine->Admit(MakePlan(3, 1));
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.message()), ::testing::HasSubstr("needs a cache of 11 tokens; 33 of 40"));
  ASSERT_TRUE(engine->Release(1).ok());
  EXPECT_TRUE(engine->Admit(MakePlan(3, 1)).ok());
}

// The coordinator lets through what PassRows says fits, so the engine must take it: a refusal ends the epoch.
TEST(EngineMemoryTest, APictureForTheTowerMayFillMoreThanHalfAPass) {
  const auto checkpoint = OpenNano();
  EngineOptions options;
  options.max_latents = 64;
  auto engine = *Engine::Load(*checkpoint, options);
  auto collective = *SingleRankCollective::Create(engine->collective_capacity());
  ASSERT_TRUE(engine->Attach(collective.get()).ok());
  RequestPlan plan = MakeAnswerPlan(1, 7);
  plan.vision_image = NoisePicture(672, 672, 1);
  plan.prefix[1] = VisualBlock(PrefixKind::kVision, 4, 24 * 24);
  ASSERT_GT(2 * plan.prefix[1].rows(), engine->limits().max_rows);
  const absl::Status admitted = engine->Admit(plan);
  EXPECT_TRUE(admitted.ok()) << admitted;
}

TEST(EngineMemoryTest, TenThousandRequestsLeaveMemoryFlat) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer's allocator tells mallinfo2 nothing";
#endif
  const auto checkpoint = OpenNano();
  EngineOptions options;
  options.max_latents = 64;
  options.max_patches = 64;
  auto engine = *Engine::Load(*checkpoint, options);
  auto collective = *SingleRankCollective::Create(engine->collective_capacity());
  ASSERT_TRUE(engine->Attach(collective.get()).ok());
  size_t after_warm_up = 0;
  for (uint64_t id = 1; id <= 10000; ++id) {
    const RequestPlan plan = id % 3 == 0 ? MakeAnswerPlan(id, id) : MakeEditPlan(id, id);
    ASSERT_TRUE(engine->Admit(plan).ok());
    // A cancelled request leaves at any point; here, after a step of the trunk now and then.
    if (id % 100 == 0) {
      ASSERT_TRUE(engine->Iterate({{id, WorkKind::kEncodeVision}, {id, WorkKind::kPrefill}}).ok());
    }
    ASSERT_TRUE(engine->Release(id).ok());
    if (id == 1000) after_warm_up = mallinfo2().uordblks + mallinfo2().hblkhd;
  }
  const size_t at_end = mallinfo2().uordblks + mallinfo2().hblkhd;
  EXPECT_LE(at_end, after_warm_up + (64 << 10));
}

}  // namespace
}  // namespace lancet
