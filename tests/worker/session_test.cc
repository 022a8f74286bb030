#include "worker/session.h"

#include <atomic>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/worker/session_fakes.h"

namespace lancet {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

SessionOptions FastOptions() {
  SessionOptions options;
  options.registration.group = "g";
  options.registration.world_size = 2;
  options.first_backoff = absl::Milliseconds(1);
  options.max_backoff = absl::Milliseconds(4);
  options.refused_delay = absl::Milliseconds(1);
  options.max_queued_commands = 4;
  return options;
}

CommandMessage Admit(uint64_t epoch, uint64_t number, uint64_t request_id) {
  AdmitCommand admit;
  admit.plan.request_id = request_id;
  return {epoch, number, admit};
}

CommandMessage Iterate(uint64_t epoch, uint64_t number, uint64_t request_id) {
  IterateCommand iterate;
  iterate.work.push_back({.request_id = request_id, .kind = WorkKind::kDenoise, .index = 3});
  return {epoch, number, iterate};
}

CommandMessage Release(uint64_t epoch, uint64_t number, uint64_t request_id) {
  return {epoch, number, ReleaseCommand{request_id}};
}

// A session on two threads of its own, stopped and joined at the end of the test.
class SessionTest : public testing::Test {
 protected:
  void Start(SessionOptions options = FastOptions()) {
    auto made = Session::Create(std::move(options), &coordinator_,
                                [this](const FormMessage& form, const std::function<bool()>& cancelled) {
                                  return MakeCollective(form, cancelled);
                                });
    ASSERT_TRUE(made.ok()) << made.status();
    session_ = *std::move(made);
    link_ = std::thread([this] { link_status_ = session_->RunLink(); });
    executor_ = std::thread([this] { session_->RunExecutor(&engine_); });
  }

  void Join() {
    if (link_.joinable()) link_.join();
    if (executor_.joinable()) executor_.join();
  }

  void TearDown() override {
    if (session_ != nullptr) session_->Stop();
    Join();
  }

  // Registers and forms `epoch`.
  void Form(uint64_t epoch) {
    coordinator_.Deliver(FormMessage{epoch, "segment", 2, {}});
    const auto ready = coordinator_.Expect<ReadyMessage>();
    ASSERT_TRUE(ready.has_value());
    EXPECT_EQ(ready->epoch, epoch);
  }

  absl::StatusOr<std::unique_ptr<Collective>> MakeCollective(const FormMessage& form,
                                                             const std::function<bool()>& cancelled) {
    if (form.segment == "bad") return absl::NotFoundError("segment bad is not there");
    if (form.segment == "wait") {
      waiting_for_peers_ = true;
      while (!cancelled()) std::this_thread::yield();
      return absl::CancelledError("cancelled");
    }
    auto collective = std::make_unique<FakeCollective>();
    collective_ = collective.get();
    return collective;
  }

  FakeCoordinator coordinator_;
  FakeEngine engine_;
  std::unique_ptr<Session> session_;
  std::thread link_;
  std::thread executor_;
  absl::Status link_status_;
  std::atomic<FakeCollective*> collective_{nullptr};
  std::atomic<bool> waiting_for_peers_{false};
};

TEST_F(SessionTest, RegistersFormsAndRunsCommandsInOrder) {
  Start();
  const auto registration = coordinator_.Expect<RegisterMessage>();
  ASSERT_TRUE(registration.has_value());
  EXPECT_EQ(registration->group, "g");
  EXPECT_EQ(registration->world_size, 2);
  Form(7);
  coordinator_.Deliver(Admit(7, 1, 11));
  coordinator_.Deliver(Iterate(7, 2, 11));
  coordinator_.Deliver(Release(7, 3, 11));
  for (const uint64_t number : {1, 2, 3}) {
    const auto done = coordinator_.Expect<DoneMessage>();
    ASSERT_TRUE(done.has_value());
    EXPECT_EQ(done->epoch, 7u);
    EXPECT_EQ(done->number, number);
    EXPECT_EQ(done->results.size(), number == 2 ? 1u : 0u);
    if (number == 2) {
      EXPECT_EQ(done->results[0].index, 3);
    }
  }
  EXPECT_THAT(engine_.calls(), ElementsAre("attach", "warm up", "admit 11", "iterate", "release 11"));
}

TEST_F(SessionTest, AnswersPingWhileTheExecutorIsBlocked) {
  Start();
  ASSERT_TRUE(coordinator_.Expect<RegisterMessage>().has_value());
  Form(1);
  coordinator_.Deliver(Iterate(1, 1, 0));
  ASSERT_TRUE(collective_.load()->AwaitBlocked());
  coordinator_.Deliver(PingMessage{99});
  const auto pong = coordinator_.Expect<PongMessage>();
  ASSERT_TRUE(pong.has_value());
  EXPECT_EQ(pong->id, 99u);
}

TEST_F(SessionTest, GapInTheNumbersIsAFaultAndTheNextEpochWorks) {
  Start();
  ASSERT_TRUE(coordinator_.Expect<RegisterMessage>().has_value());
  Form(1);
  coordinator_.Deliver(Admit(1, 2, 11));
  const auto fault = coordinator_.Expect<FaultMessage>();
  ASSERT_TRUE(fault.has_value());
  EXPECT_EQ(fault->epoch, 1u);
  EXPECT_EQ(fault->reason, "command 2 came when 1 was due");
  Form(2);
  EXPECT_THAT(engine_.calls(), ElementsAre("attach", "warm up", "attach", "warm up"));
}

TEST_F(SessionTest, DropsCommandsOfAnOldEpoch) {
  Start();
  ASSERT_TRUE(coordinator_.Expect<RegisterMessage>().has_value());
  Form(1);
  Form(2);
  coordinator_.Deliver(Admit(1, 1, 11));
  coordinator_.Deliver(Admit(2, 1, 12));
  const auto done = coordinator_.Expect<DoneMessage>();
  ASSERT_TRUE(done.has_value());
  EXPECT_EQ(done->epoch, 2u);
  EXPECT_THAT(engine_.calls(), ElementsAre("attach", "warm up", "attach", "warm up", "admit 12"));
}

TEST_F(SessionTest, AbortFreesABlockedExecutorAndDropsWhatWaits) {
  Start();
  ASSERT_TRUE(coordinator_.Expect<RegisterMessage>().has_value());
  Form(1);
  coordinator_.Deliver(Iterate(1, 1, 0));
  ASSERT_TRUE(collective_.load()->AwaitBlocked());
  coordinator_.Deliver(Admit(1, 2, 11));
  coordinator_.Deliver(AbortMessage{1, "rank 1 is gone"});
  // No Fault for an epoch that the coordinator itself ended: the next message is the Ready of the next one.
  Form(2);
  EXPECT_THAT(engine_.calls(), ElementsAre("attach", "warm up", "iterate", "attach", "warm up"));
}

TEST_F(SessionTest, AbortOfAnotherEpochDoesNothing) {
  Start();
  ASSERT_TRUE(coordinator_.Expect<RegisterMessage>().has_value());
  Form(2);
  coordinator_.Deliver(AbortMessage{1, "old"});
  coordinator_.Deliver(Admit(2, 1, 11));
  EXPECT_TRUE(coordinator_.Expect<DoneMessage>().has_value());
}

TEST_F(SessionTest, AbortEndsWaitingForPeers) {
  Start();
  ASSERT_TRUE(coordinator_.Expect<RegisterMessage>().has_value());
  coordinator_.Deliver(FormMessage{1, "wait", 2, {}});
  while (!waiting_for_peers_) std::this_thread::yield();
  coordinator_.Deliver(AbortMessage{1, "rank 1 never came"});
  Form(2);
}

TEST_F(SessionTest, FailedFormIsAFault) {
  Start();
  ASSERT_TRUE(coordinator_.Expect<RegisterMessage>().has_value());
  coordinator_.Deliver(FormMessage{1, "bad", 2, {}});
  const auto fault = coordinator_.Expect<FaultMessage>();
  ASSERT_TRUE(fault.has_value());
  EXPECT_EQ(fault->reason, "cannot join the collectives: segment bad is not there");
  coordinator_.Deliver(FormMessage{2, "segment", 4, {}});
  const auto second = coordinator_.Expect<FaultMessage>();
  ASSERT_TRUE(second.has_value());
  EXPECT_THAT(second->reason, HasSubstr("world_size 4; expected an epoch above 0 and world_size 2"));
  EXPECT_THAT(engine_.calls(), IsEmpty());
}

TEST_F(SessionTest, FailedWarmUpIsAFault) {
  engine_.warm_up_status = absl::InternalError("no luck");
  Start();
  ASSERT_TRUE(coordinator_.Expect<RegisterMessage>().has_value());
  coordinator_.Deliver(FormMessage{1, "segment", 2, {}});
  const auto fault = coordinator_.Expect<FaultMessage>();
  ASSERT_TRUE(fault.has_value());
  EXPECT_EQ(fault->reason, "warm-up failed: no luck");
}

TEST_F(SessionTest, FailedCommandIsAFaultThatNamesIt) {
  Start();
  ASSERT_TRUE(coordinator_.Expect<RegisterMessage>().has_value());
  Form(1);
  coordinator_.Deliver(Release(1, 1, 404));
  const auto fault = coordinator_.Expect<FaultMessage>();
  ASSERT_TRUE(fault.has_value());
  EXPECT_EQ(fault->reason, "command 1: request 404 is unknown");
}

TEST_F(SessionTest, FullQueueIsAFault) {
  Start();
  ASSERT_TRUE(coordinator_.Expect<RegisterMessage>().has_value());
  Form(1);
  coordinator_.Deliver(Iterate(1, 1, 0));
  ASSERT_TRUE(collective_.load()->AwaitBlocked());
  for (uint64_t number = 2; number <= 6; ++number) coordinator_.Deliver(Admit(1, number, number));
  const auto fault = coordinator_.Expect<FaultMessage>();
  ASSERT_TRUE(fault.has_value());
  EXPECT_EQ(fault->reason, "command 6 came while 4 wait; the limit is 4");
}

TEST_F(SessionTest, BrokenStreamFreesTheExecutorAndRegistersAgain) {
  Start();
  ASSERT_TRUE(coordinator_.Expect<RegisterMessage>().has_value());
  Form(5);
  coordinator_.Deliver(Iterate(5, 1, 0));
  ASSERT_TRUE(collective_.load()->AwaitBlocked());
  coordinator_.Break("the coordinator crashed");
  ASSERT_TRUE(coordinator_.Expect<RegisterMessage>().has_value());
  // A new coordinator counts its epochs from wherever it likes.
  Form(5);
  coordinator_.Deliver(Admit(5, 1, 11));
  EXPECT_TRUE(coordinator_.Expect<DoneMessage>().has_value());
}

TEST_F(SessionTest, DialsAgainUntilSomebodyAnswers) {
  coordinator_.RefuseDialling(true);
  Start();
  ASSERT_TRUE(coordinator_.AwaitConnects(3));
  coordinator_.RefuseDialling(false);
  EXPECT_TRUE(coordinator_.Expect<RegisterMessage>().has_value());
}

TEST_F(SessionTest, SilenceAfterAPingBreaksTheStream) {
  SessionOptions options = FastOptions();
  options.silence_timeout = absl::Milliseconds(20);
  Start(options);
  ASSERT_TRUE(coordinator_.Expect<RegisterMessage>().has_value());
  coordinator_.Deliver(PingMessage{1});
  ASSERT_TRUE(coordinator_.Expect<PongMessage>().has_value());
  EXPECT_TRUE(coordinator_.Expect<RegisterMessage>().has_value());
}

TEST_F(SessionTest, PassingRefusalIsTriedAgain) {
  Start();
  ASSERT_TRUE(coordinator_.Expect<RegisterMessage>().has_value());
  coordinator_.Deliver(RefuseMessage{"rank 0 is taken", false});
  EXPECT_TRUE(coordinator_.Expect<RegisterMessage>().has_value());
}

TEST_F(SessionTest, PermanentRefusalEndsTheSession) {
  Start();
  ASSERT_TRUE(coordinator_.Expect<RegisterMessage>().has_value());
  coordinator_.Deliver(RefuseMessage{"the fingerprint differs", true});
  Join();
  EXPECT_EQ(link_status_.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(link_status_.message()), HasSubstr("the fingerprint differs"));
}

TEST_F(SessionTest, ShutdownComesAfterTheCommandsBeforeIt) {
  Start();
  ASSERT_TRUE(coordinator_.Expect<RegisterMessage>().has_value());
  Form(1);
  coordinator_.Deliver(Admit(1, 1, 11));
  coordinator_.Deliver(ShutdownMessage{});
  Join();
  EXPECT_TRUE(link_status_.ok()) << link_status_;
  EXPECT_TRUE(coordinator_.Expect<DoneMessage>().has_value());
}

TEST_F(SessionTest, LeaveAsksAndGoesWhenTheCoordinatorSaysSo) {
  Start();
  ASSERT_TRUE(coordinator_.Expect<RegisterMessage>().has_value());
  Form(1);
  session_->Leave(absl::Minutes(1));
  const auto leaving = coordinator_.Expect<LeavingMessage>();
  ASSERT_TRUE(leaving.has_value());
  EXPECT_EQ(leaving->grace_seconds, 60);
  // It works until it is let go.
  coordinator_.Deliver(Admit(1, 1, 11));
  EXPECT_TRUE(coordinator_.Expect<DoneMessage>().has_value());
  coordinator_.Deliver(ShutdownMessage{});
  Join();
  EXPECT_TRUE(link_status_.ok()) << link_status_;
}

TEST_F(SessionTest, LeaveEndsWithItsGraceWithTheStreamAndAtASecondCall) {
  for (const int way : {0, 1, 2}) {
    Start();
    ASSERT_TRUE(coordinator_.Expect<RegisterMessage>().has_value());
    Form(1);
    session_->Leave(way == 0 ? absl::Milliseconds(1) : absl::Minutes(1));
    ASSERT_TRUE(coordinator_.Expect<LeavingMessage>().has_value());
    if (way == 1) coordinator_.Break("the coordinator died");
    if (way == 2) session_->Leave(absl::Minutes(1));
    Join();
    EXPECT_TRUE(link_status_.ok()) << link_status_;
  }
}

TEST_F(SessionTest, StopFreesABlockedExecutor) {
  Start();
  ASSERT_TRUE(coordinator_.Expect<RegisterMessage>().has_value());
  Form(1);
  coordinator_.Deliver(Iterate(1, 1, 0));
  ASSERT_TRUE(collective_.load()->AwaitBlocked());
  session_->Stop();
  Join();
  EXPECT_TRUE(link_status_.ok()) << link_status_;
}

TEST_F(SessionTest, AnExecutorThatDoesNotComeBackEndsTheSession) {
  SessionOptions options = FastOptions();
  options.stuck_timeout = absl::Milliseconds(20);
  options.silence_timeout = absl::Milliseconds(40);  // how often it looks; nothing is promised without a ping
  Start(options);
  ASSERT_TRUE(coordinator_.Expect<RegisterMessage>().has_value());
  Form(1);
  coordinator_.Deliver(Iterate(1, 1, kStuckRequest));
  ASSERT_TRUE(engine_.AwaitStuck());
  // However long it takes while its epoch lasts: when that is over is the coordinator's to say.
  std::this_thread::sleep_for(std::chrono::milliseconds(60));
  EXPECT_EQ(coordinator_.connects(), 1);
  coordinator_.Deliver(AbortMessage{1, "rank 0 did not finish command 1"});
  link_.join();
  EXPECT_EQ(link_status_.code(), absl::StatusCode::kDeadlineExceeded) << link_status_;
  engine_.Unstick();
  Join();
}

TEST_F(SessionTest, AnExecutorThatComesBackInTimeGoesOn) {
  SessionOptions options = FastOptions();
  options.silence_timeout = absl::Milliseconds(40);
  Start(options);
  ASSERT_TRUE(coordinator_.Expect<RegisterMessage>().has_value());
  Form(1);
  coordinator_.Deliver(Iterate(1, 1, kStuckRequest));
  ASSERT_TRUE(engine_.AwaitStuck());
  coordinator_.Deliver(AbortMessage{1, "another rank was lost"});
  engine_.Unstick();
  Form(2);
  coordinator_.Deliver(Admit(2, 1, 11));
  EXPECT_TRUE(coordinator_.Expect<DoneMessage>().has_value());
}

TEST(SessionCreateTest, RejectsARankOutsideItsWorld) {
  FakeCoordinator coordinator;
  for (const auto& [rank, world_size] : {std::pair{-1, 2}, {2, 2}, {0, 0}}) {
    SessionOptions options = FastOptions();
    options.registration.rank = rank;
    options.registration.world_size = world_size;
    EXPECT_EQ(Session::Create(options, &coordinator, nullptr).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST(BackoffTest, DoublesUpToItsLimitWithJitterBelow) {
  Backoff backoff(absl::Milliseconds(100), absl::Seconds(1), 1);
  absl::Duration nominal = absl::Milliseconds(100);
  for (int i = 0; i < 8; ++i) {
    const absl::Duration wait = backoff.Next();
    EXPECT_LE(wait, nominal);
    EXPECT_GE(wait, nominal / 2);
    nominal = std::min(absl::Seconds(1), 2 * nominal);
  }
  backoff.Reset();
  EXPECT_LE(backoff.Next(), absl::Milliseconds(100));
}

}  // namespace
}  // namespace lancet
