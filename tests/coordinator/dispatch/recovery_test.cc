// Requests whose group dies or leaves: they go on, on this group or another, and end as if nothing had
// happened.
#include <algorithm>

#include "tests/coordinator/dispatch/core_testing.h"

namespace lancet {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class RecoveryTest : public CoreWithGroups {};

TEST_F(RecoveryTest, APictureGoesOnFromItsSnapshot) {
  FakeGroup& group = AddGroup("g");
  NewRequest request = Drawing(1, 12);
  request.preview = PreviewPlan{.every_n_steps = 2};
  const RequestPlan plan = request.plan;
  Submit(std::move(request));
  group.Execute(2 + 7);
  EXPECT_THAT(Read(1), ElementsAre("started", "preview 6", "progress 7"));
  group.Kill(1);
  EXPECT_FALSE(serving_);
  EXPECT_THAT(Read(1), IsEmpty());
  group.executed.clear();
  group.Serve();
  EXPECT_TRUE(serving_);
  // From step 5, with its prefix anew.
  EXPECT_THAT(Read(1), ElementsAre("progress 5"));
  group.Execute(2 + 4);
  EXPECT_EQ(group.executed.front().kind, WorkKind::kPrefill);
  EXPECT_EQ(group.executed.at(2).index, 5);
  // There was a preview of step 6.
  EXPECT_THAT(Read(1), ElementsAre("preview 8", "progress 9"));
  ExecuteAll();
  EXPECT_THAT(Read(1), ElementsAre("progress 12", "preview 12", "result", "OK"));
  EXPECT_THAT(group.admitted, IsEmpty());
  EXPECT_EQ(pictures_[1], Picture(plan));
}

TEST_F(RecoveryTest, AnIterationThatTakesFarLongerThanOthersEndsTheEpoch) {
  options_.patience.least = absl::Seconds(30);
  FakeGroup& group = AddGroup("g");
  Submit(Drawing(1, 8));
  // The prefix, and two steps of the four that the group is asked for.
  group.Execute(2 + 2);
  for (int i = 0; i < 2; ++i) Tick(absl::Seconds(14));  // pings are answered
  EXPECT_TRUE(core_->Groups().at(0).serving);
  for (int i = 0; i < 2; ++i) Tick(absl::Seconds(2));
  EXPECT_FALSE(core_->Groups().at(0).serving);
  Tick(absl::Seconds(1));
  group.Execute(0);
  ExecuteAll();
  EXPECT_THAT(Read(1), Contains("OK"));
}

TEST_F(RecoveryTest, WorkThatWasNotSeenYetHasAllOfTheTime) {
  options_.patience.least = absl::Seconds(30);
  FakeGroup& group = AddGroup("g");
  Submit(Drawing(1, 2));
  group.Execute(2 + 2);  // all but the decode
  for (int i = 0; i < 10; ++i) Tick(absl::Seconds(50));
  EXPECT_TRUE(core_->Groups().at(0).serving);
  for (int i = 0; i < 3; ++i) Tick(absl::Seconds(50));
  EXPECT_FALSE(core_->Groups().at(0).serving);
}

TEST_F(RecoveryTest, TheSecondOrderSolverAndEditsGoOn) {
  FakeGroup& group = AddGroup("g");
  NewRequest second_order = Drawing(1, 12);
  second_order.plan.sampler.solver = Solver::kDpmpp2m;
  NewRequest edit = Edit(2, 12);
  const RequestPlan plans[] = {second_order.plan, edit.plan};
  Submit(std::move(second_order));
  Submit(std::move(edit));
  group.Execute(12);
  group.Kill(0);
  group.executed.clear();
  group.Serve();
  ExecuteAll();
  for (const uint64_t id : {1, 2}) {
    EXPECT_THAT(Read(id), Contains("OK")) << id;
    EXPECT_EQ(pictures_[id], Picture(plans[id - 1])) << id;
  }
  // The picture of the edit was encoded again.
  const auto encoded = [&](WorkKind kind) {
    return std::count_if(group.executed.begin(), group.executed.end(),
                         [&](const Work& w) { return w.kind == kind; });
  };
  EXPECT_EQ(encoded(WorkKind::kEncodeVision), 1);
  EXPECT_EQ(encoded(WorkKind::kEncodeLatents), 1);
}

TEST_F(RecoveryTest, WithoutASnapshotItBeginsAgainAndAnOldOneIsRenewedEarly) {
  options_.recovery.snapshot_every = 0;
  FakeGroup& group = AddGroup("g");
  NewRequest request = Drawing(1, 6);
  const RequestPlan plan = request.plan;
  Submit(std::move(request));
  group.Execute(6);
  group.Kill(1);
  group.Serve();
  EXPECT_THAT(Read(1), ElementsAre("started", "progress 0"));
  ExecuteAll();
  EXPECT_EQ((Read(1), pictures_[1]), Picture(plan));

  groups_.clear();
  options_.recovery.snapshot_every = 100;
  options_.recovery.snapshot_age = absl::Seconds(3);
  MakeCore();
  FakeGroup& slow = AddGroup("slow");
  slow.each = absl::Seconds(1);
  Submit(Drawing(2, 20));
  slow.Execute(2 + 8);
  slow.Kill(0);
  slow.each = absl::Milliseconds(1);
  slow.Serve();
  const std::vector<std::string> heard = Read(2);
  EXPECT_THAT(heard.back(), testing::AnyOf("progress 4", "progress 5", "progress 6", "progress 7"))
      << "of 8 seconds";
}

TEST_F(RecoveryTest, OnlyTheDecodeIsRepeatedIfTheStepsAreKnown) {
  FakeGroup& group = AddGroup("g");
  NewRequest request = Edit(1, 5);
  const RequestPlan plan = request.plan;
  Submit(std::move(request));
  group.Execute(4 + 5);
  group.Kill(1);
  group.executed.clear();
  group.Serve();
  ExecuteAll();
  ASSERT_EQ(group.executed.size(), 1u);
  EXPECT_EQ(group.executed[0].kind, WorkKind::kDecode);
  EXPECT_EQ((Read(1), pictures_[1]), Picture(plan));
}

TEST_F(RecoveryTest, AnAnswerGoesOnBehindWhatWasSaid) {
  for (const int length : {10, 1000}) {  // ends by itself, is cut
    groups_.clear();
    MakeCore();
    FakeGroup& group = AddGroup("g");
    group.answer_length = length;
    NewRequest request = Question(1, 12);
    const RequestPlan plan = request.plan;
    deltas_.clear();
    Submit(std::move(request));
    group.Execute(2 + 5);
    const std::vector<std::string> before = Read(1);
    EXPECT_EQ(deltas_[1], Answer(plan, 5));
    group.Kill(0);
    group.executed.clear();
    group.Serve();
    EXPECT_THAT(Read(1), IsEmpty());
    group.Execute(3);
    EXPECT_EQ(group.admitted[1].plan.prefix.back().token_ids.size(), 5u);  // replayed in one block
    ExecuteAll();
    const std::vector<std::string> after = Read(1);
    EXPECT_THAT(after, Contains("OK"));
    EXPECT_EQ(deltas_[1], Answer(plan, std::min(length - 1, 12))) << "a delta twice, or none";
    EXPECT_EQ(texts_[1].text, deltas_[1]);
    EXPECT_EQ(texts_[1].answer_tokens, std::min(length, 12));
    EXPECT_EQ(texts_[1].prompt_tokens, 4);
    core_->OnCallDone(1, clock_.Now());
  }
}

TEST_F(RecoveryTest, RequestsGoOnOnAnotherGroupOfTheSameKindAlone) {
  FakeGroup& a = AddGroup("a");
  NewRequest request = Drawing(1, 12);
  const RequestPlan plan = request.plan;
  Submit(std::move(request));
  a.Execute(2 + 7);
  FakeGroup& other = AddGroup("b", 2, "cuda");
  FakeGroup& smaller = AddGroup("c", 1, "cpu");
  a.Kill(1);
  EXPECT_THAT(other.admitted, IsEmpty());
  ExecuteAll();
  EXPECT_THAT(smaller.executed, IsEmpty());
  EXPECT_THAT(other.executed, IsEmpty());
  FakeGroup& same = AddGroup("d");
  EXPECT_THAT(Read(1), ElementsAre("started", "progress 5"));
  ExecuteAll();
  EXPECT_FALSE(same.executed.empty());
  EXPECT_EQ((Read(1), pictures_[1]), Picture(plan));
}

TEST_F(RecoveryTest, AnyGroupWillDoIfAskedTo) {
  options_.recovery.resume_anywhere = true;
  FakeGroup& a = AddGroup("a");
  Submit(Drawing(1, 12));
  a.Execute(2 + 7);
  AddGroup("b", 1, "cuda");
  a.Kill(1);
  ExecuteAll();
  EXPECT_THAT(Read(1), Contains("OK"));
}

TEST_F(RecoveryTest, ALostRequestIsNextWhoeverWaits) {
  options_.max_active = 1;
  FakeGroup& group = AddGroup("g");
  Submit(Drawing(1, 12));
  NewRequest urgent = Drawing(2, 3);
  urgent.priority = Priority::kHigh;
  Submit(std::move(urgent));
  group.Execute(6);
  group.Kill(0);
  group.Serve();
  group.Execute(1);
  EXPECT_TRUE(group.admitted.contains(1));
  ExecuteAll();
  for (const uint64_t id : {1, 2}) EXPECT_THAT(Read(id), Contains("OK"));
}

TEST_F(RecoveryTest, TwoDeathsAreEnough) {
  FakeGroup& group = AddGroup("g");
  Submit(Drawing(0xabc, 30));
  group.Execute(10);
  group.Kill(0);
  group.Serve();
  group.Execute(20);
  group.Kill(1);
  EXPECT_THAT(Read(0xabc), Contains("INTERNAL"));
  EXPECT_THAT(std::string(ends_[0xabc][0].status.message()), HasSubstr("0000000000000abc"));
  group.Serve();
  EXPECT_THAT(group.admitted, IsEmpty());
}

TEST_F(RecoveryTest, OnePoisonousRequestHurtsNobodyElse) {
  FakeGroup& group = AddGroup("g");
  group.deadly = [](const Work& work) {
    return work.request_id == 3 && work.kind == WorkKind::kDenoise && work.index == 7;
  };
  std::map<uint64_t, RequestPlan> plans;
  for (const uint64_t id : {1, 2, 3, 4}) {
    NewRequest request = Drawing(id, 20);
    plans[id] = request.plan;
    Submit(std::move(request));
  }
  for (int i = 0; i < 10; ++i) {
    ExecuteAll();
    group.Serve();
  }
  EXPECT_EQ(group.deaths, 2);
  EXPECT_THAT(Read(3), Contains("INTERNAL"));
  for (const uint64_t id : {1, 2, 4}) {
    EXPECT_THAT(Read(id), Contains("OK")) << id;
    EXPECT_EQ(pictures_[id], Picture(plans[id])) << id;
  }
}

TEST_F(RecoveryTest, ARequestThatKillsWithItsFirstWorkIsFound) {
  FakeGroup& group = AddGroup("g");
  group.deadly = [](const Work& work) { return work.request_id == 2; };
  for (const uint64_t id : {1, 2, 3}) Submit(Drawing(id, 10));
  for (int i = 0; i < 10; ++i) {
    ExecuteAll();
    group.Serve();
  }
  EXPECT_THAT(Read(2), Contains("INTERNAL"));
  for (const uint64_t id : {1, 3}) EXPECT_THAT(Read(id), Contains("OK")) << id;
}

TEST_F(RecoveryTest, NobodyWaitsForEverForAGroup) {
  options_.max_active = 1;
  FakeGroup& group = AddGroup("g");
  Submit(Drawing(1, 12));
  Submit(Drawing(2, 12));
  group.Execute(6);
  group.Kill(0);
  Submit(Drawing(3, 12));
  EXPECT_THAT(Read(3), ElementsAre("UNAVAILABLE"));
  EXPECT_TRUE(ends_[3][0].retry_after.has_value());
  Tick(absl::Seconds(1));
  Tick(absl::Minutes(1));
  for (const uint64_t id : {1, 2}) EXPECT_THAT(Read(id), Not(Contains("UNAVAILABLE"))) << id;
  Tick(absl::Minutes(1));
  for (const uint64_t id : {1, 2}) {
    EXPECT_THAT(Read(id), ElementsAre("UNAVAILABLE")) << id;
    EXPECT_TRUE(ends_[id][0].retry_after.has_value());
  }
}

TEST_F(RecoveryTest, ACancelledOrLateRequestDoesNotComeBack) {
  FakeGroup& group = AddGroup("g");
  Submit(Drawing(1, 12));
  NewRequest late = Drawing(2, 12);
  late.deadline = clock_.Now() + absl::Seconds(30);
  Submit(std::move(late));
  group.Execute(6);
  group.Kill(0);
  core_->Cancel(1, clock_.Now());
  EXPECT_THAT(Read(1), Contains("CANCELLED"));
  Tick(absl::Minutes(1));
  EXPECT_THAT(Read(2), Contains("DEADLINE_EXCEEDED"));
  group.Serve();
  ExecuteAll();
  EXPECT_THAT(group.admitted, IsEmpty());
}

TEST_F(RecoveryTest, RequestsAreSpreadOverGroups) {
  FakeGroup& a = AddGroup("a");
  FakeGroup& b = AddGroup("b");
  for (const uint64_t id : {1, 2, 3, 4}) Submit(Drawing(id, 12));
  a.Execute(4);
  b.Execute(4);
  EXPECT_EQ(a.admitted.size(), 2u);
  EXPECT_EQ(b.admitted.size(), 2u);
}

TEST_F(RecoveryTest, ALeavingGroupFinishesWhatItCanAndHandsOverTheRest) {
  FakeGroup& a = AddGroup("a");
  std::map<uint64_t, RequestPlan> plans;
  NewRequest brief = Drawing(1, 10);
  NewRequest lengthy = Drawing(2, 400);
  NewRequest answer = Question(3, 500);
  for (const NewRequest* request : {&brief, &lengthy, &answer}) {
    plans[request->plan.request_id] = request->plan;
  }
  Submit(std::move(brief));
  Submit(std::move(lengthy));
  Submit(std::move(answer));
  a.Execute(2 + 4);
  FakeGroup& b = AddGroup("b");
  a.SayLeaving(1, absl::Seconds(10));
  EXPECT_TRUE(serving_);
  a.Execute(3);
  // The answer went at once, the long picture with the next step's snapshot; no step is drawn twice.
  b.Execute(4);
  EXPECT_TRUE(b.admitted.contains(3));
  ASSERT_TRUE(b.admitted.contains(2));
  EXPECT_GE(b.admitted[2].steps, 5);
  EXPECT_FALSE(a.Dismissed(1));
  Submit(Drawing(4, 10));
  b.Execute(4);
  EXPECT_TRUE(b.admitted.contains(4));
  ExecuteAll();
  EXPECT_THAT(Read(1), Contains("OK"));
  for (const uint64_t id : {2, 3, 4}) EXPECT_THAT(Read(id), Contains("OK")) << id;
  EXPECT_EQ(pictures_[2], Picture(plans[2]));
  EXPECT_EQ(deltas_[3], Answer(plans[3], 500));
  EXPECT_FALSE(a.executed.empty());
}

TEST_F(RecoveryTest, AnIdleGroupLeavesAtOnceAndComesBack) {
  FakeGroup& a = AddGroup("a");
  a.SayLeaving(0, absl::Seconds(10));
  EXPECT_FALSE(serving_);
  EXPECT_TRUE(a.Dismissed(0));
  EXPECT_FALSE(a.Dismissed(1));
  a.HangUp(0);
  a.Serve();
  EXPECT_TRUE(serving_);
  Submit(Drawing(1, 3));
  ExecuteAll();
  EXPECT_THAT(Read(1), Contains("OK"));
}

TEST_F(RecoveryTest, LeavingIsNobodysFaultHoweverOften) {
  FakeGroup& group = AddGroup("g");
  NewRequest request = Drawing(1, 400);
  const RequestPlan plan = request.plan;
  Submit(std::move(request));
  for (int i = 0; i < 4; ++i) {
    group.Execute(20);
    group.SayLeaving(0, absl::Seconds(5));
    group.Execute(5);
    EXPECT_TRUE(group.Dismissed(0));
    group.HangUp(0);
    group.Serve();
  }
  ExecuteAll();
  EXPECT_EQ((Read(1), pictures_[1]), Picture(plan));
}

TEST_F(RecoveryTest, AGroupThatHasToLeaveIsClearedInTime) {
  FakeGroup& group = AddGroup("g");
  group.each = absl::Milliseconds(1);
  NewRequest request = Drawing(1, 40);
  Submit(std::move(request));
  group.Execute(10);  // it looks as if it were done in time
  group.SayLeaving(0, absl::Seconds(5));
  EXPECT_FALSE(group.Dismissed(0));
  Tick(absl::Seconds(2));
  EXPECT_FALSE(group.Dismissed(0));
  Tick(absl::Seconds(2) + absl::Milliseconds(1));
  EXPECT_TRUE(group.Dismissed(0));
  group.Execute(2);
  EXPECT_THAT(group.admitted, IsEmpty());
}

}  // namespace
}  // namespace lancet
