#include "protos/convert.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <string>
#include <vector>

namespace lancet {
namespace {

using ::testing::HasSubstr;

Positions Counting(int n) {
  Positions p;
  for (int i = 0; i < n; ++i) {
    p.t.push_back(i);
    p.h.push_back(i + 100);
    p.w.push_back(i + 200);
  }
  return p;
}

RequestPlan SomePlan() {
  RequestPlan plan;
  plan.request_id = 77;
  plan.prefix.push_back(
      {.token_ids = {5, 6, 7}, .positions = Counting(3), .conditional = true, .unconditional = false});
  plan.prefix.push_back(
      {.token_ids = {9}, .positions = Counting(1), .conditional = false, .unconditional = true});
  plan.target = {.latent_height = 2,
                 .latent_width = 3,
                 .start_token_id = 11,
                 .end_token_id = 12,
                 .conditional = Counting(8),
                 .unconditional = Counting(8)};
  plan.sampler = {.num_steps = 12,
                  .timestep_shift = 2.5f,
                  .guidance_scale = 3.5f,
                  .guidance_start = 0.25f,
                  .guidance_end = 0.75f,
                  .solver = Solver::kDpmpp2m};
  plan.vision_image = RgbImage{28, 28, std::vector<uint8_t>(28 * 28 * 3, 7)};
  plan.condition_image = RgbImage{16, 32, std::vector<uint8_t>(16 * 32 * 3, 9)};
  plan.sample_condition = true;
  plan.prefix.push_back({.token_ids = {11, 12}, .positions = Counting(4), .kind = PrefixKind::kVision});
  plan.seed = 0xfedcba9876543210u;
  return plan;
}

TEST(ConvertPlanTest, RoundTrips) {
  const RequestPlan plan = SomePlan();
  const absl::StatusOr<RequestPlan> back = FromProto(ToProto(plan));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->request_id, plan.request_id);
  EXPECT_EQ(back->seed, plan.seed);
  ASSERT_EQ(back->prefix.size(), 3u);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(back->prefix[i].kind, plan.prefix[i].kind);
    EXPECT_EQ(back->prefix[i].token_ids, plan.prefix[i].token_ids);
    EXPECT_EQ(back->prefix[i].positions, plan.prefix[i].positions);
    EXPECT_EQ(back->prefix[i].conditional, plan.prefix[i].conditional);
    EXPECT_EQ(back->prefix[i].unconditional, plan.prefix[i].unconditional);
  }
  EXPECT_EQ(back->target.latent_height, 2);
  EXPECT_EQ(back->target.latent_width, 3);
  EXPECT_EQ(back->target.start_token_id, 11);
  EXPECT_EQ(back->target.end_token_id, 12);
  EXPECT_EQ(back->target.conditional, plan.target.conditional);
  EXPECT_EQ(back->target.unconditional, plan.target.unconditional);
  EXPECT_EQ(back->sampler.num_steps, 12);
  EXPECT_EQ(back->sampler.timestep_shift, 2.5f);
  EXPECT_EQ(back->sampler.guidance_scale, 3.5f);
  EXPECT_EQ(back->sampler.guidance_start, 0.25f);
  EXPECT_EQ(back->sampler.guidance_end, 0.75f);
  EXPECT_EQ(back->sampler.solver, Solver::kDpmpp2m);
  EXPECT_EQ(back->vision_image, plan.vision_image);
  EXPECT_EQ(back->condition_image, plan.condition_image);
  EXPECT_TRUE(back->sample_condition);
  EXPECT_FALSE(back->answer.has_value());
}

RequestPlan SomeAnswerPlan() {
  RequestPlan plan = SomePlan();
  plan.target = {};
  plan.sampler = {};
  plan.condition_image.reset();
  plan.answer = AnswerParams{.max_new_tokens = 5,
                             .temperature = 0.5f,
                             .first_token_id = 3,
                             .first_position = 40,
                             .stop_token_id = 4,
                             .num_valid_tokens = 99};
  return plan;
}

TEST(ConvertPlanTest, RoundTripsAnAnswer) {
  const RequestPlan plan = SomeAnswerPlan();
  const absl::StatusOr<RequestPlan> back = FromProto(ToProto(plan));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->answer, plan.answer);
  EXPECT_FALSE(back->draws());
  EXPECT_FALSE(back->condition_image.has_value());
}

TEST(ConvertPlanTest, RoundTripsWhatGoesOn) {
  RequestPlan drawing = SomePlan();
  drawing.snapshot = LatentSnapshot{.step = 7,
                                    .latents = std::vector<bf16>(6 * 48, bf16{0x1234}),
                                    .previous_clean = std::vector<float>(6 * 48, 0.1f)};
  EXPECT_EQ(FromProto(ToProto(drawing))->snapshot, drawing.snapshot);
  RequestPlan answer = SomeAnswerPlan();
  answer.answer->first_index = 9;
  answer.prefix.back().answered = true;
  const absl::StatusOr<RequestPlan> back = FromProto(ToProto(answer));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->answer->first_index, 9);
  EXPECT_TRUE(back->prefix.back().answered);
  EXPECT_FALSE(back->prefix.front().answered);
}

TEST(ConvertPlanTest, RefusesSnapshotsOfOddOrHugeSize) {
  RequestPlan plan = SomePlan();
  plan.snapshot = LatentSnapshot{.step = 7, .latents = std::vector<bf16>(6 * 48), .previous_clean = {}};
  v1::RequestPlan message = ToProto(plan);
  message.mutable_snapshot()->mutable_latents()->pop_back();
  EXPECT_THAT(std::string(FromProto(message).status().message()),
              HasSubstr("plan.snapshot.latents: 575 bytes"));
  message = ToProto(plan);
  message.mutable_snapshot()->mutable_previous_clean()->assign((size_t{1} << 16) * 48 * 4 + 192, 'x');
  EXPECT_THAT(std::string(FromProto(message).status().message()), HasSubstr("plan.snapshot.previous_clean"));
  message = ToProto(plan);
  message.mutable_snapshot()->set_step(0);
  EXPECT_THAT(std::string(FromProto(message).status().message()), HasSubstr("plan.snapshot.step"));
}

struct BadPlan {
  const char* field;
  std::function<void(v1::RequestPlan&)> spoil;
};

TEST(ConvertPlanTest, RefusesWhatDoesNotFitTogether) {
  const std::vector<BadPlan> cases = {
      {"neither of target and answer", [](v1::RequestPlan& p) { p.clear_target(); }},
      {"both of target and answer", [](v1::RequestPlan& p) { p.mutable_answer(); }},
      {"plan.prefix[0].kind", [](v1::RequestPlan& p) { p.mutable_prefix(0)->clear_kind(); }},
      {"plan.prefix[2]: markers", [](v1::RequestPlan& p) { p.mutable_prefix(2)->add_token_ids(1); }},
      {"plan.prefix[2]: rows", [](v1::RequestPlan& p) { p.mutable_prefix(2)->clear_positions(); }},
      {"plan.sampler.solver", [](v1::RequestPlan& p) { p.mutable_sampler()->clear_solver(); }},
      {"plan.vision_image.pixels", [](v1::RequestPlan& p) { p.mutable_vision_image()->clear_pixels(); }},
      {"plan.answer.max_new_tokens",
       [](v1::RequestPlan& p) {
         p.clear_target();
         p.mutable_answer();
       }},
      {"plan.prefix: blocks",
       [](v1::RequestPlan& p) {
         for (int i = 0; i <= kMaxPrefixBlocks; ++i) p.add_prefix();
       }},
      {"plan.prefix[0]: tokens", [](v1::RequestPlan& p) { p.mutable_prefix(0)->clear_token_ids(); }},
      {"plan.prefix[1].positions",
       [](v1::RequestPlan& p) { p.mutable_prefix(1)->mutable_positions()->add_w(1); }},
      {"plan.prefix[0].positions", [](v1::RequestPlan& p) { p.mutable_prefix(0)->clear_positions(); }},
      {"plan.target.latent_height", [](v1::RequestPlan& p) { p.mutable_target()->set_latent_height(0); }},
      {"plan.target.latent_width", [](v1::RequestPlan& p) { p.mutable_target()->set_latent_width(-1); }},
      {"latent_height * latent_width",
       [](v1::RequestPlan& p) {
         p.mutable_target()->set_latent_width(kMaxLatentSide);
         p.mutable_target()->set_latent_height(kMaxLatentSide);
       }},
      {"plan.target.conditional",
       [](v1::RequestPlan& p) { p.mutable_target()->mutable_conditional()->add_t(0); }},
      {"plan.target.unconditional", [](v1::RequestPlan& p) { p.mutable_target()->clear_unconditional(); }},
      {"plan.sampler.num_steps", [](v1::RequestPlan& p) { p.mutable_sampler()->set_num_steps(0); }},
      {"plan.sampler.timestep_shift",
       [](v1::RequestPlan& p) {
         p.mutable_sampler()->set_timestep_shift(std::numeric_limits<float>::quiet_NaN());
       }},
      {"plan.sampler.guidance_scale",
       [](v1::RequestPlan& p) {
         p.mutable_sampler()->set_guidance_scale(std::numeric_limits<float>::infinity());
       }},
  };
  for (const BadPlan& bad : cases) {
    v1::RequestPlan plan = ToProto(SomePlan());
    bad.spoil(plan);
    const absl::Status status = FromProto(plan).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad.field;
    EXPECT_THAT(std::string(status.message()), HasSubstr(bad.field));
  }
}

template <typename T>
T RankRoundTrip(const T& message) {
  const absl::StatusOr<RankMessage> back = FromProto(ToProto(RankMessage(message)));
  EXPECT_TRUE(back.ok()) << back.status();
  return std::get<T>(*back);
}

TEST(ConvertRankMessageTest, RoundTripsEveryKind) {
  const RegisterMessage reg = RankRoundTrip(RegisterMessage{.group = "g",
                                                            .rank = 1,
                                                            .world_size = 2,
                                                            .fingerprint = "abc",
                                                            .device = "cpu",
                                                            .host = "h",
                                                            .collective_address = "10.0.0.3:7000",
                                                            .max_latents = 4096,
                                                            .pid = 9,
                                                            .max_rows = 8196,
                                                            .cache_tokens = 5000,
                                                            .has_vision = true,
                                                            .max_requests = 7,
                                                            .max_patches = 2304,
                                                            .numerics = "cpu w4a16"});
  EXPECT_EQ(reg.numerics, "cpu w4a16");
  EXPECT_EQ(reg.group, "g");
  EXPECT_EQ(reg.rank, 1);
  EXPECT_EQ(reg.world_size, 2);
  EXPECT_EQ(reg.fingerprint, "abc");
  EXPECT_EQ(reg.device, "cpu");
  EXPECT_EQ(reg.host, "h");
  EXPECT_EQ(reg.collective_address, "10.0.0.3:7000");
  EXPECT_EQ(reg.max_latents, 4096);
  EXPECT_EQ(reg.pid, 9);
  EXPECT_EQ(reg.max_rows, 8196);
  EXPECT_EQ(reg.cache_tokens, 5000);
  EXPECT_TRUE(reg.has_vision);
  EXPECT_EQ(reg.max_requests, 7);
  EXPECT_EQ(reg.max_patches, 2304);

  EXPECT_EQ(RankRoundTrip(ReadyMessage{3}).epoch, 3u);
  EXPECT_EQ(RankRoundTrip(PongMessage{8}).id, 8u);
  EXPECT_EQ(RankRoundTrip(LeavingMessage{2.5}).grace_seconds, 2.5);
  EXPECT_EQ(RankRoundTrip(FaultMessage{4, "broke"}).reason, "broke");

  DoneMessage done{.epoch = 2, .number = 5, .results = {}};
  done.results.push_back({.request_id = 1,
                          .kind = WorkKind::kDenoise,
                          .index = 3,
                          .preview = RgbImage{1, 2, {1, 2, 3, 4, 5, 6}},
                          .image = std::nullopt,
                          .token = AnswerToken{17, true},
                          .seconds = 0.5,
                          .snapshot = LatentSnapshot{4, std::vector<bf16>(48, bf16{3}), {}}});
  done.results.emplace_back();
  done.results[1].image = RgbImage{1, 1, {7, 8, 9}};
  const DoneMessage back = RankRoundTrip(done);
  EXPECT_EQ(back.epoch, 2u);
  EXPECT_EQ(back.number, 5u);
  ASSERT_EQ(back.results.size(), 2u);
  EXPECT_EQ(back.results[0].preview, done.results[0].preview);
  EXPECT_FALSE(back.results[0].image.has_value());
  EXPECT_EQ(back.results[0].kind, WorkKind::kDenoise);
  EXPECT_EQ(back.results[0].index, 3);
  EXPECT_EQ(back.results[0].token, done.results[0].token);
  EXPECT_EQ(back.results[0].seconds, 0.5);
  EXPECT_EQ(back.results[0].snapshot, done.results[0].snapshot);
  EXPECT_EQ(back.results[1].image, done.results[1].image);
}

TEST(ConvertRankMessageTest, RefusesPicturesThatLieAboutTheirSize) {
  DoneMessage done;
  done.results.emplace_back();
  done.results[0].image = RgbImage{4, 4, std::vector<uint8_t>(48)};
  const v1::ConnectRequest good = ToProto(RankMessage(done));
  ASSERT_TRUE(FromProto(good).ok());
  for (const auto& [width, height] : std::vector<std::pair<int, int>>{{5, 4},
                                                                      {0, 4},
                                                                      {4, -4},
                                                                      {kMaxImageSide + 1, 1},
                                                                      {kMaxImageSide, kMaxImageSide},
                                                                      {1 << 30, 1 << 30}}) {
    v1::ConnectRequest bad = good;
    v1::RgbImage& image = *bad.mutable_done()->mutable_results(0)->mutable_image();
    image.set_width(width);
    image.set_height(height);
    const absl::Status status = FromProto(bad).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << width << " x " << height;
    EXPECT_THAT(std::string(status.message()), HasSubstr("result.image"));
  }
}

TEST(ConvertRankMessageTest, RefusesUnknownKindsAndEmptyMessages) {
  DoneMessage done;
  done.results.push_back({});
  v1::ConnectRequest bad = ToProto(RankMessage(done));
  bad.mutable_done()->mutable_results(0)->set_kind(static_cast<v1::WorkKind>(17));
  EXPECT_THAT(std::string(FromProto(bad).status().message()),
              HasSubstr("result.kind: unknown kind of work 17"));
  bad = ToProto(RankMessage(done));
  bad.mutable_done()->mutable_results(0)->set_seconds(std::numeric_limits<double>::quiet_NaN());
  EXPECT_THAT(std::string(FromProto(bad).status().message()), HasSubstr("result.seconds"));
  EXPECT_EQ(FromProto(v1::ConnectRequest()).status().code(), absl::StatusCode::kInvalidArgument);

  RegisterMessage reg;
  reg.group = std::string(kMaxNameBytes + 1, 'g');
  const v1::ConnectRequest long_name = ToProto(RankMessage(reg));
  EXPECT_THAT(std::string(FromProto(long_name).status().message()), HasSubstr("register.group"));
}

template <typename T>
T CoordinatorRoundTrip(const T& message) {
  const absl::StatusOr<CoordinatorMessage> back = FromProto(ToProto(CoordinatorMessage(message)));
  EXPECT_TRUE(back.ok()) << back.status();
  return std::get<T>(*back);
}

TEST(ConvertCoordinatorMessageTest, RoundTripsEveryKind) {
  const FormMessage form = CoordinatorRoundTrip(FormMessage{5, "/segment", 2, {"a:1", "b:2"}});
  EXPECT_EQ(form.epoch, 5u);
  EXPECT_EQ(form.segment, "/segment");
  EXPECT_EQ(form.world_size, 2);
  EXPECT_EQ(form.collective_addresses, (std::vector<std::string>{"a:1", "b:2"}));
  EXPECT_TRUE(absl::IsInvalidArgument(
      FromProto(ToProto(CoordinatorMessage(FormMessage{5, "s", 2, {"a:1"}}))).status()));
  EXPECT_EQ(CoordinatorRoundTrip(AbortMessage{6, "why"}).reason, "why");
  EXPECT_EQ(CoordinatorRoundTrip(PingMessage{7}).id, 7u);
  const RefuseMessage refuse = CoordinatorRoundTrip(RefuseMessage{"no", true});
  EXPECT_EQ(refuse.reason, "no");
  EXPECT_TRUE(refuse.permanent);
  CoordinatorRoundTrip(ShutdownMessage{});

  const CommandMessage admit = CoordinatorRoundTrip(CommandMessage{1, 2, AdmitCommand{SomePlan()}});
  EXPECT_EQ(std::get<AdmitCommand>(admit.command).plan.target.conditional, SomePlan().target.conditional);
  const CommandMessage release = CoordinatorRoundTrip(CommandMessage{1, 3, ReleaseCommand{42}});
  EXPECT_EQ(std::get<ReleaseCommand>(release.command).request_id, 42u);
  const CommandMessage iterate = CoordinatorRoundTrip(
      CommandMessage{1, 4, IterateCommand{{Work{9, WorkKind::kDenoise, 3, PreviewMethod::kVae}}}});
  EXPECT_EQ(iterate.epoch, 1u);
  EXPECT_EQ(iterate.number, 4u);
  const Work& work = std::get<IterateCommand>(iterate.command).work.at(0);
  EXPECT_EQ(work.request_id, 9u);
  EXPECT_EQ(work.kind, WorkKind::kDenoise);
  EXPECT_EQ(work.index, 3);
  EXPECT_EQ(work.preview, PreviewMethod::kVae);
}

TEST(ConvertCoordinatorMessageTest, CutsLongReasonsAndRefusesUnknownWork) {
  const AbortMessage abort = CoordinatorRoundTrip(AbortMessage{1, std::string(3 * kMaxReasonBytes, 'x')});
  EXPECT_EQ(abort.reason.size(), kMaxReasonBytes);

  v1::ConnectResponse bad = ToProto(CoordinatorMessage(CommandMessage{1, 1, IterateCommand{{Work{}}}}));
  bad.mutable_command()->mutable_iterate()->mutable_work(0)->set_preview(static_cast<v1::WorkPreview>(9));
  EXPECT_THAT(std::string(FromProto(bad).status().message()),
              HasSubstr("work.preview: unknown preview method 9"));
  bad.mutable_command()->mutable_iterate()->clear_work();
  EXPECT_THAT(std::string(FromProto(bad).status().message()), HasSubstr("iterate.work"));
  bad.mutable_command()->clear_command();
  EXPECT_EQ(FromProto(bad).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(FromProto(v1::ConnectResponse()).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace lancet
