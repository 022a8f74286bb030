#include "coordinator/dispatch/dispatcher_core.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "tests/coordinator/testing/byte_tokenizer.h"
#include "tests/coordinator/testing/fake_clock.h"
#include "tests/coordinator/testing/fake_rank_link.h"

namespace lancet {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Encodes at once.
class InstantEncoder final : public ImageEncoder {
 public:
  void EncodePreview(const std::shared_ptr<PreviewSlot>&, int32_t step, RgbImage image,
                     const PreviewPlan& plan, const std::shared_ptr<EventSink>& sink) override {
    sink->Push(PreviewEvent{step, {plan.format, image.width, image.height, "preview"}});
  }
  void EncodeResult(RgbImage image, ImageFormat format, ResultCallback done) override {
    if (fail) {
      done(absl::InternalError("libpng: /secret/path"), absl::ZeroDuration());
    } else {
      done(EncodedImage{format, image.width, image.height, "result"}, absl::Milliseconds(5));
    }
  }
  bool fail = false;
};

// A core, two fake ranks that execute what they are sent when the test says so, and clients.
class DispatcherCoreTest : public ::testing::Test {
 protected:
  DispatcherCoreTest() { MakeCore(4, 3); }

  void MakeCore(int max_active, int max_queue) {
    DispatcherCore::Options options;
    options.max_active = max_active;
    options.max_queue = max_queue;
    options.max_calls = 20;
    options.fingerprint = "f00d";
    options.encoder = &encoder_;
    options.registry.random = [] { return uint64_t{1}; };
    options.post = [this](std::function<void(absl::Time)> task) {
      posted_.push_back(std::move(task));
      return true;
    };
    options.row_budget = row_budget_;
    // Clocks jump here by more than an iteration may take.
    options.patience.least = options.patience.most;
    options.on_readiness = [this](bool serving, bool vision) {
      readiness_.push_back(serving);
      vision_readiness_.push_back(vision);
    };
    core_ = std::make_unique<DispatcherCore>(std::move(options));
  }

  void JoinRank(int rank) {
    links_[rank] = std::make_shared<FakeRankLink>();
    core_->OnConnected(links_[rank], clock_.Now());
    RegisterMessage info;
    info.group = "g";
    info.rank = rank;
    info.world_size = 2;
    info.fingerprint = "f00d";
    info.max_latents = 4096;
    info.max_rows = 1000;
    info.cache_tokens = 2000;
    info.max_requests = 8;
    info.has_vision = has_vision_;
    info.max_patches = has_vision_ ? 256 : 0;
    core_->OnMessage(links_[rank], info, clock_.Now());
  }
  void Serve() {
    for (int rank : {0, 1}) JoinRank(rank);
    ExecuteAll(0);
  }

  // Lets the ranks execute everything that was sent to them, `each` at a time on the clock. Commands are
  // checked like a rank checks them.
  void ExecuteAll(int max_iterations = 1000, absl::Duration each = absl::Milliseconds(100)) {
    int iterations = 0;
    for (bool progress = true; progress;) {
      progress = false;
      for (int rank : {0, 1}) {
        if (links_[rank] == nullptr) continue;
        for (CoordinatorMessage& message : links_[rank]->TakeSent())
          inbox_[rank].push_back(std::move(message));
      }
      for (int rank : {1, 0}) {
        if (inbox_[rank].empty()) continue;
        CoordinatorMessage message = inbox_[rank].front();
        const auto* command = std::get_if<CommandMessage>(&message);
        if (command != nullptr && std::holds_alternative<IterateCommand>(command->command) && rank == 1) {
          if (iterations == max_iterations) return;
          ++iterations;
        }
        // Rank 0 follows rank 1, so that both stop at the same command.
        if (rank == 0 && command != nullptr && command->number > done_by_1_) continue;
        inbox_[rank].pop_front();
        progress = true;
        Execute(rank, message, each);
      }
      RunPosted();
    }
  }

  void Execute(int rank, const CoordinatorMessage& message, absl::Duration each) {
    if (const auto* form = std::get_if<FormMessage>(&message)) {
      admitted_.clear();
      done_by_1_ = 0;
      core_->OnMessage(links_[rank], ReadyMessage{form->epoch}, clock_.Now());
    } else if (const auto* ping = std::get_if<PingMessage>(&message)) {
      core_->OnMessage(links_[rank], PongMessage{ping->id}, clock_.Now());
    } else if (const auto* command = std::get_if<CommandMessage>(&message)) {
      DoneMessage done{command->epoch, command->number, {}};
      if (rank == 1) done_by_1_ = command->number;
      if (rank == 0) Apply(*command, done, each);
      core_->OnMessage(links_[rank], std::move(done), clock_.Now());
    }
  }

  void Apply(const CommandMessage& command, DoneMessage& done, absl::Duration each) {
    if (const auto* admit = std::get_if<AdmitCommand>(&command.command)) {
      EXPECT_TRUE(admitted_.insert(admit->plan.request_id).second);
      EXPECT_LE(admitted_.size(), 8u);
    } else if (const auto* release = std::get_if<ReleaseCommand>(&command.command)) {
      EXPECT_EQ(admitted_.erase(release->request_id), 1u);
    } else {
      clock_.Advance(each);
      for (const Work& work : std::get<IterateCommand>(command.command).work) {
        EXPECT_THAT(admitted_, Contains(work.request_id));
        executed_.push_back(work);
        WorkResult result;
        result.request_id = work.request_id;
        result.kind = work.kind;
        result.index = work.index;
        result.seconds = absl::ToDoubleSeconds(each);
        if (work.preview != PreviewMethod::kNone) result.preview = RgbImage{1, 1, {1, 2, 3}};
        if (work.kind == WorkKind::kAnswer && work.index < static_cast<int>(answer_ids_.size())) {
          result.token =
              AnswerToken{answer_ids_[work.index], work.index + 1 == static_cast<int>(answer_ids_.size())};
        }
        if (work.kind == WorkKind::kDecode)
          result.image = RgbImage{32, 32, std::vector<uint8_t>(3 * 32 * 32)};
        done.results.push_back(std::move(result));
      }
    }
  }

  void RunPosted() {
    while (!posted_.empty()) {
      auto task = std::move(posted_.front());
      posted_.pop_front();
      task(clock_.Now());
    }
  }

  NewRequest Request(uint64_t id, int steps = 4) {
    NewRequest request;
    request.plan.request_id = id;
    request.plan.prefix.resize(2);
    request.plan.target.latent_height = 2;
    request.plan.target.latent_width = 2;
    request.plan.sampler.num_steps = steps;
    request.plan.seed = 1000 + id;
    request.arrival = clock_.Now();
    request.stream = std::make_shared<EventStream>(&clock_);
    streams_[id] = request.stream;
    return request;
  }
  // About a picture of 4 patches, in two blocks of 4 rows.
  NewRequest Question(uint64_t id, int max_new_tokens) {
    NewRequest request = Request(id);
    RequestPlan& plan = request.plan;
    plan.target = {};
    plan.vision_image = RgbImage{28, 28, std::vector<uint8_t>(3 * 28 * 28)};
    plan.prefix[0].kind = PrefixKind::kVision;
    for (auto* axis : {&plan.prefix[0].positions.t, &plan.prefix[0].positions.h, &plan.prefix[0].positions.w})
      axis->assign(3, 0);
    for (auto* axis : {&plan.prefix[1].positions.t, &plan.prefix[1].positions.h, &plan.prefix[1].positions.w})
      axis->assign(1, 3);
    plan.answer.emplace();
    plan.answer->max_new_tokens = max_new_tokens;
    plan.answer->stop_token_id = kByteTokenizerEnd;
    request.input = InputImageInfo{28, 28, 0, 28, 28};
    request.text = std::make_unique<AnswerText>(tokenizer_.get());
    return request;
  }
  void Submit(uint64_t id, int steps = 4) { core_->Submit(Request(id, steps), clock_.Now()); }

  // Everything the client has got since the last call, as it reads.
  std::vector<std::string> Read(uint64_t id) {
    std::vector<std::string> events;
    while (auto next = streams_[id]->Take()) {
      if (auto* end = std::get_if<CallStatus>(&*next)) {
        ends_[id] = *end;
        events.push_back(absl::StatusCodeToString(end->status.code()));
        break;
      }
      streams_[id]->Sent();
      const ClientEvent& event = std::get<ClientEvent>(*next);
      if (const auto* queued = std::get_if<QueuedEvent>(&event)) {
        events.push_back("queued " + std::to_string(queued->position));
        queued_ = *queued;
      } else if (const auto* started = std::get_if<StartedEvent>(&event)) {
        events.push_back("started");
        started_ = *started;
      } else if (const auto* progress = std::get_if<ProgressEvent>(&event)) {
        events.push_back("progress " + std::to_string(progress->step));
        progress_ = *progress;
      } else if (const auto* preview = std::get_if<PreviewEvent>(&event)) {
        events.push_back("preview " + std::to_string(preview->step));
      } else if (const auto* delta = std::get_if<DeltaEvent>(&event)) {
        events.push_back("delta " + delta->text);
        delta_ = *delta;
      } else if (const auto* text = std::get_if<TextResultEvent>(&event)) {
        events.push_back("text " + text->text);
        text_result_ = *text;
      } else {
        events.push_back("result");
        result_ = std::get<ResultEvent>(event);
      }
    }
    return events;
  }

  const std::unique_ptr<Tokenizer> tokenizer_ = ByteTokenizer();
  FakeClock clock_;
  InstantEncoder encoder_;
  std::unique_ptr<DispatcherCore> core_;
  std::shared_ptr<FakeRankLink> links_[2];
  std::deque<CoordinatorMessage> inbox_[2];
  uint64_t done_by_1_ = 0;
  std::set<uint64_t> admitted_;  // as rank 0 sees it
  std::vector<Work> executed_;
  std::deque<std::function<void(absl::Time)>> posted_;
  std::vector<bool> readiness_;
  std::vector<bool> vision_readiness_;
  int64_t row_budget_ = 1000;
  bool has_vision_ = true;
  std::vector<int32_t> answer_ids_;  // what every answer says; the last one ends it
  std::map<uint64_t, std::shared_ptr<EventStream>> streams_;
  std::map<uint64_t, CallStatus> ends_;
  QueuedEvent queued_;
  StartedEvent started_;
  ProgressEvent progress_;
  ResultEvent result_;
  DeltaEvent delta_;
  TextResultEvent text_result_;
};

TEST_F(DispatcherCoreTest, ARequestGoesFromStartToResult) {
  Serve();
  EXPECT_THAT(readiness_, ElementsAre(true));
  NewRequest request = Request(7, 3);
  request.preview = PreviewPlan{};
  request.preview->every_n_steps = 2;
  request.warnings = {"an odd size"};
  core_->Submit(std::move(request), clock_.Now());
  EXPECT_THAT(Read(7), ElementsAre("started"));
  EXPECT_EQ(started_.request_id, "0000000000000007");
  EXPECT_EQ(started_.seed, 1007u);
  EXPECT_EQ(started_.width, 32);
  EXPECT_EQ(started_.num_inference_steps, 3);
  EXPECT_THAT(started_.warnings, ElementsAre("an odd size"));
  ExecuteAll(2);
  EXPECT_THAT(Read(7), IsEmpty());  // prefill
  ExecuteAll(1);
  EXPECT_THAT(Read(7), ElementsAre("progress 1"));
  EXPECT_EQ(progress_.total_steps, 3);
  EXPECT_EQ(progress_.elapsed, absl::Milliseconds(300));
  EXPECT_EQ(progress_.estimated_remaining, absl::Milliseconds(300));
  ExecuteAll(1);
  EXPECT_THAT(Read(7), ElementsAre("progress 2", "preview 2"));
  ExecuteAll();
  EXPECT_THAT(Read(7), ElementsAre("progress 3", "result", "OK"));
  EXPECT_EQ(result_.seed, 1007u);
  EXPECT_EQ(result_.model_fingerprint, "f00d");
  EXPECT_EQ(result_.timings.prefill, absl::Milliseconds(200));
  EXPECT_EQ(result_.timings.denoise, absl::Milliseconds(300));
  EXPECT_EQ(result_.timings.decode, absl::Milliseconds(100));
  EXPECT_EQ(result_.timings.encode, absl::Milliseconds(5));
  EXPECT_EQ(result_.timings.total, absl::Milliseconds(600));
  EXPECT_THAT(admitted_, IsEmpty());
  EXPECT_FALSE(core_->idle());
  core_->OnCallDone(7, clock_.Now());
  EXPECT_TRUE(core_->idle());
}

TEST_F(DispatcherCoreTest, RequestsShareIterationsAndTheRestWaitsInOrder) {
  MakeCore(2, 3);
  Serve();
  for (uint64_t id : {1, 2, 3, 4}) Submit(id);
  EXPECT_THAT(Read(1), ElementsAre("started"));
  EXPECT_THAT(Read(2), ElementsAre("started"));
  EXPECT_THAT(Read(3), ElementsAre("queued 0"));
  EXPECT_THAT(Read(4), ElementsAre("queued 1"));
  EXPECT_FALSE(queued_.estimated_wait.has_value());  // nothing was measured yet
  ExecuteAll(6);
  // Two iterations were on their way when the second request came.
  ASSERT_EQ(executed_.size(), 10u);
  for (size_t i = 2; i < executed_.size(); ++i) EXPECT_EQ(executed_[i].request_id, 1 + i % 2) << i;
  core_->Cancel(3, clock_.Now());
  EXPECT_THAT(Read(3), ElementsAre("CANCELLED"));
  EXPECT_THAT(Read(4), ElementsAre("queued 0"));
  EXPECT_TRUE(queued_.estimated_wait.has_value());
  ExecuteAll();
  for (uint64_t id : {1, 2, 4}) EXPECT_THAT(Read(id), Contains("OK")) << id;
  EXPECT_THAT(admitted_, IsEmpty());
}

TEST_F(DispatcherCoreTest, AFullQueueIsRefusedWithARetryDelay) {
  MakeCore(1, 2);
  Serve();
  for (uint64_t id : {1, 2, 3, 4}) Submit(id);
  EXPECT_THAT(Read(4), ElementsAre("RESOURCE_EXHAUSTED"));
  ASSERT_TRUE(ends_[4].retry_after.has_value());
  EXPECT_GE(*ends_[4].retry_after, absl::Seconds(1));
  ExecuteAll();
  for (uint64_t id : {1, 2, 3}) EXPECT_THAT(Read(id), Contains("OK"));
}

TEST_F(DispatcherCoreTest, CallsAreBoundedEvenWhenNobodyWaits) {
  MakeCore(4, 100);
  Serve();
  for (uint64_t id = 1; id <= 21; ++id) Submit(id);
  EXPECT_THAT(Read(21), ElementsAre("RESOURCE_EXHAUSTED"));
}

TEST_F(DispatcherCoreTest, ACancelledRequestIsReleasedBeforeTheNextIteration) {
  Serve();
  Submit(1, 100);
  Submit(2, 100);
  ExecuteAll(6);
  core_->Cancel(1, clock_.Now());
  EXPECT_THAT(Read(1), Contains("CANCELLED"));
  const size_t before = executed_.size();
  ExecuteAll(6);
  // At most the two iterations that were under way; the release follows them.
  const auto of_1 = std::count_if(executed_.begin() + before, executed_.end(),
                                  [](const Work& work) { return work.request_id == 1; });
  EXPECT_LE(of_1, 2);
  EXPECT_THAT(admitted_, ElementsAre(2));
}

TEST_F(DispatcherCoreTest, AnAlreadyCancelledRequestNeverStarts) {
  Serve();
  NewRequest request = Request(1);
  request.stream->SetCancelled();
  core_->Submit(std::move(request), clock_.Now());
  EXPECT_THAT(Read(1), ElementsAre("CANCELLED"));
  EXPECT_THAT(links_[0]->Take<CommandMessage>(), IsEmpty());
}

TEST_F(DispatcherCoreTest, DeadlinesEndWaitingAndRunningRequests) {
  MakeCore(1, 3);
  Serve();
  for (uint64_t id : {1, 2}) {
    NewRequest request = Request(id, 100);
    request.deadline = clock_.Now() + absl::Seconds(2);
    core_->Submit(std::move(request), clock_.Now());
  }
  NewRequest late = Request(3);
  late.deadline = clock_.Now();
  core_->Submit(std::move(late), clock_.Now());
  EXPECT_THAT(Read(3), ElementsAre("DEADLINE_EXCEEDED"));
  ExecuteAll(3);
  core_->Tick(clock_.Now());
  EXPECT_THAT(Read(1), testing::Not(Contains("DEADLINE_EXCEEDED")));
  clock_.Advance(absl::Milliseconds(1700));
  core_->Tick(clock_.Now());
  EXPECT_THAT(Read(1), Contains("DEADLINE_EXCEEDED"));
  EXPECT_THAT(Read(2), Contains("DEADLINE_EXCEEDED"));
  ExecuteAll();
  EXPECT_THAT(admitted_, IsEmpty());
}

TEST_F(DispatcherCoreTest, WithoutAGroupRequestsAreRefused) {
  Submit(1);
  EXPECT_THAT(Read(1), ElementsAre("UNAVAILABLE"));
  JoinRank(0);
  Submit(2);
  EXPECT_THAT(Read(2), ElementsAre("UNAVAILABLE"));
  EXPECT_THAT(readiness_, IsEmpty());
}

TEST_F(DispatcherCoreTest, WhatNoGroupCanDrawIsAFailedPrecondition) {
  Serve();
  NewRequest request = Request(1);
  request.plan.target.latent_height = 64;
  request.plan.target.latent_width = 65;
  core_->Submit(std::move(request), clock_.Now());
  EXPECT_THAT(Read(1), ElementsAre("FAILED_PRECONDITION"));
}

TEST_F(DispatcherCoreTest, ResultsOfARequestThatLeftAreIgnored) {
  Serve();
  Submit(1, 2);
  ExecuteAll(3);
  core_->Cancel(1, clock_.Now());
  core_->OnCallDone(1, clock_.Now());
  EXPECT_TRUE(core_->idle());
  ExecuteAll();
  EXPECT_THAT(admitted_, IsEmpty());
}

TEST_F(DispatcherCoreTest, AFailedEncodingIsInternalWithAnIdAndNoInternals) {
  Serve();
  encoder_.fail = true;
  Submit(0xab);
  ExecuteAll();
  EXPECT_THAT(Read(0xab), Contains("INTERNAL"));
  EXPECT_EQ(ends_[0xab].status.message(), "request 00000000000000ab failed");
}

TEST_F(DispatcherCoreTest, AClientThatDoesNotReadIsEndedAfterAMinute) {
  Serve();
  Submit(1, 1000);
  ASSERT_TRUE(streams_[1]->Take().has_value());  // and never sent
  ExecuteAll(10);
  clock_.Advance(absl::Seconds(50));
  for (int rank : {0, 1}) links_[rank]->TakeSent();
  core_->Tick(clock_.Now());
  EXPECT_EQ(core_->Groups().at(0).active_requests, 1);
  clock_.Advance(absl::Seconds(10));
  core_->Tick(clock_.Now());
  EXPECT_TRUE(core_->Groups().empty() || core_->Groups().at(0).active_requests == 0);
}

TEST_F(DispatcherCoreTest, DrainingRefusesNewWorkAndFinishesWhatWasAccepted) {
  MakeCore(1, 3);
  Serve();
  Submit(1);
  Submit(2);
  core_->Drain();
  EXPECT_THAT(readiness_, ElementsAre(true, false));
  Submit(3);
  EXPECT_THAT(Read(3), ElementsAre("UNAVAILABLE"));
  ExecuteAll();
  EXPECT_THAT(Read(1), Contains("OK"));
  EXPECT_THAT(Read(2), Contains("OK"));
  for (uint64_t id : {1, 2, 3}) core_->OnCallDone(id, clock_.Now());
  EXPECT_TRUE(core_->idle());
}

TEST_F(DispatcherCoreTest, StopEndsEverything) {
  MakeCore(1, 3);
  Serve();
  Submit(1);
  Submit(2);
  core_->Stop(clock_.Now());
  EXPECT_THAT(Read(1), Contains("UNAVAILABLE"));
  EXPECT_THAT(Read(2), Contains("UNAVAILABLE"));
}

TEST_F(DispatcherCoreTest, AnAnswerStreamsAndEndsWithTheStopToken) {
  Serve();
  answer_ids_ = {' ', 'h', 'i', ' ', kByteTokenizerEnd};
  core_->Submit(Question(7, 50), clock_.Now());
  EXPECT_THAT(Read(7), ElementsAre("started"));
  EXPECT_EQ(started_.max_new_tokens, 50);
  ASSERT_TRUE(started_.input.has_value());
  EXPECT_EQ(started_.input->vision_width, 28);
  ExecuteAll(3);  // the tower, two blocks
  EXPECT_THAT(Read(7), IsEmpty());
  ExecuteAll(1);
  EXPECT_THAT(Read(7), IsEmpty());  // white space at the start
  ExecuteAll(1);
  EXPECT_THAT(Read(7), ElementsAre("delta h"));
  EXPECT_EQ(delta_.token_count, 2);
  ExecuteAll();
  EXPECT_THAT(Read(7), ElementsAre("delta i", "text hi", "OK"));
  EXPECT_EQ(text_result_.finish_reason, FinishReason::kStop);
  EXPECT_EQ(text_result_.answer_tokens, 5);
  EXPECT_EQ(text_result_.prompt_tokens, 4);
  EXPECT_EQ(text_result_.seed, 1007u);
  EXPECT_EQ(text_result_.timings.answer, absl::Milliseconds(500));
  EXPECT_EQ(text_result_.timings.input, absl::Milliseconds(100));
  EXPECT_THAT(admitted_, IsEmpty());
}

TEST_F(DispatcherCoreTest, AnAnswerThatIsCutSaysSoAndASlowClientLosesNothing) {
  Serve();
  answer_ids_ = {'h', ' ', 'i', ' '};
  core_->Submit(Question(7, 4), clock_.Now());
  EXPECT_THAT(Read(7), ElementsAre("started"));
  ExecuteAll();
  EXPECT_THAT(Read(7), ElementsAre("delta h i", "text h i", "OK"));
  EXPECT_EQ(text_result_.finish_reason, FinishReason::kLength);
  EXPECT_EQ(delta_.token_count, 3);  // the fourth is white space at the end
}

TEST_F(DispatcherCoreTest, AnAnswerStreamsWhileTwoPicturesAreDrawn) {
  Serve();
  Submit(1, 20);
  Submit(2, 20);
  answer_ids_ = {'h', 'i', 'h', 'i', 'h', 'i', kByteTokenizerEnd};
  core_->Submit(Question(3, 50), clock_.Now());
  ExecuteAll(12);
  EXPECT_THAT(Read(3), Contains("text hihihi"));
  EXPECT_THAT(Read(1), testing::Not(Contains("OK")));
  ExecuteAll();
  for (uint64_t id : {1, 2}) EXPECT_THAT(Read(id), Contains("OK"));
}

TEST_F(DispatcherCoreTest, ATokenThatDoesNotExistIsInternal) {
  Serve();
  answer_ids_ = {'h', 999, 'i'};
  core_->Submit(Question(7, 4), clock_.Now());
  ExecuteAll();
  EXPECT_THAT(Read(7), testing::IsSupersetOf({"delta h", "INTERNAL"}));
}

TEST_F(DispatcherCoreTest, WithoutAVisionTowerQuestionsAreAFailedPrecondition) {
  has_vision_ = false;
  Serve();
  EXPECT_THAT(vision_readiness_, ElementsAre(false));
  EXPECT_FALSE(core_->Groups().at(0).has_vision);
  core_->Submit(Question(7, 4), clock_.Now());
  EXPECT_THAT(Read(7), ElementsAre("FAILED_PRECONDITION"));
  EXPECT_THAT(std::string(ends_[7].status.message()), HasSubstr("vision tower"));
}

TEST_F(DispatcherCoreTest, CacheMemoryMakesRequestsWaitAndIsFreeAtOnceAfterACancel) {
  Serve();
  EXPECT_THAT(vision_readiness_, ElementsAre(true));
  answer_ids_.assign(3000, 'h');
  core_->Submit(Question(1, 1500), clock_.Now());
  core_->Submit(Question(2, 1500), clock_.Now());
  core_->Submit(Question(3, 2000), clock_.Now());
  EXPECT_THAT(Read(1), ElementsAre("started"));
  EXPECT_THAT(Read(2), ElementsAre("queued 0"));
  EXPECT_THAT(Read(3), ElementsAre("FAILED_PRECONDITION"));
  EXPECT_THAT(std::string(ends_[3].status.message()), HasSubstr("2004 tokens of cache"));
  ExecuteAll(10);
  core_->Cancel(1, clock_.Now());
  EXPECT_THAT(Read(2), ElementsAre("started"));
  core_->Cancel(2, clock_.Now());
  ExecuteAll();
  EXPECT_THAT(admitted_, IsEmpty());
}

TEST_F(DispatcherCoreTest, TheOperatorsRowBudgetCounts) {
  row_budget_ = 7;
  MakeCore(4, 3);
  Serve();
  Submit(1);  // 4 latents and 2 markers, once for each of two contexts
  EXPECT_THAT(Read(1), ElementsAre("FAILED_PRECONDITION"));
  EXPECT_THAT(std::string(ends_[1].status.message()), HasSubstr("12 rows"));
}

TEST_F(DispatcherCoreTest, GroupsTellWhoServes) {
  JoinRank(0);
  ASSERT_EQ(core_->Groups().size(), 1u);
  EXPECT_FALSE(core_->Groups()[0].serving);
  JoinRank(1);
  ExecuteAll(0);
  Submit(1);
  const GroupInfo info = core_->Groups().at(0);
  EXPECT_EQ(info.name, "g");
  EXPECT_EQ(info.world_size, 2);
  EXPECT_TRUE(info.serving);
  EXPECT_EQ(info.active_requests, 1);
}

}  // namespace
}  // namespace lancet
