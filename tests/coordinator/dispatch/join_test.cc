// Calls that ask for the same request by its idempotency key.
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tests/coordinator/dispatch/core_testing.h"

namespace lancet {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Not;

class KeepsOutcomes final : public ServiceObserver {
 public:
  void OnOutcome(const RequestOutcome& outcome) override { outcomes.push_back(outcome); }
  std::vector<RequestOutcome> outcomes;
};

class JoinTest : public CoreWithGroups {
 protected:
  JoinTest() { options_.observer = &observer_; }
  // "1 OK" of a request, "2 OK joined 1" of a call that joined it; in the order in which they were told.
  std::vector<std::string> Outcomes() const {
    std::vector<std::string> words;
    for (const RequestOutcome& outcome : observer_.outcomes) {
      words.push_back(absl::StrCat(outcome.id, " ", absl::StatusCodeToString(outcome.status.code())));
      if (outcome.joined.has_value()) absl::StrAppend(&words.back(), " joined ", *outcome.joined);
      if (outcome.reason != RejectReason::kNone)
        absl::StrAppend(&words.back(), " ", RejectReasonName(outcome.reason));
    }
    return words;
  }
  NewRequest Keyed(NewRequest request, uint64_t digest = 5) {
    request.idempotency_key = "key";
    request.digest = digest;
    return request;
  }
  // With a charge that is counted and goes as told.
  NewRequest Charged(NewRequest request, CallStatus answer = {}) {
    request.charge = [this, answer](absl::Time) {
      ++charges_;
      return answer;
    };
    return request;
  }
  std::string Heard(uint64_t id) { return absl::StrJoin(Read(id), ", "); }

  KeepsOutcomes observer_;
  int charges_ = 0;
};

TEST_F(JoinTest, OnlyNewWorkIsCharged) {
  FakeGroup& group = AddGroup("g");
  Submit(Charged(Keyed(Drawing(1, 8))));
  group.Execute(2 + 3);
  Submit(Charged(Keyed(Drawing(2, 8))));
  EXPECT_EQ(charges_, 1);
  ExecuteAll();
  Submit(Charged(Keyed(Drawing(3, 8))));  // what is kept
  EXPECT_EQ(charges_, 1);
  EXPECT_THAT(Read(3), Contains("OK"));
  Submit(Charged(Drawing(4, 8)));
  EXPECT_EQ(charges_, 2);
}

TEST_F(JoinTest, WhatCannotBePaidIsNotStarted) {
  FakeGroup& group = AddGroup("g");
  const CallStatus refusal{absl::ResourceExhaustedError("used up"), absl::Seconds(9),
                           RejectReason::kTokenLimit};
  Submit(Charged(Keyed(Drawing(1, 8)), refusal));
  EXPECT_THAT(Read(1), ElementsAre("RESOURCE_EXHAUSTED"));
  EXPECT_EQ(ends_[1][0].retry_after, absl::Seconds(9));
  EXPECT_THAT(group.admitted, IsEmpty());
  EXPECT_THAT(Outcomes(), ElementsAre("1 RESOURCE_EXHAUSTED token_limit"));
  // The refusal is not what others with the key get.
  Submit(Charged(Keyed(Drawing(2, 8))));
  ExecuteAll();
  EXPECT_THAT(Read(2), Contains("OK"));
}

TEST_F(JoinTest, WhatIsNotTakenIsNotCharged) {
  AddGroup("g");
  core_->Drain();
  Submit(Charged(Drawing(1, 8)));
  EXPECT_THAT(Read(1), ElementsAre("UNAVAILABLE"));
  EXPECT_EQ(charges_, 0);
}

TEST_F(JoinTest, EveryCallHasAnOutcomeOfItsOwn) {
  FakeGroup& group = AddGroup("g");
  Submit(Keyed(Drawing(1, 8)));
  group.Execute(2 + 3);
  NewRequest second = Keyed(Drawing(2, 8));
  second.origin.trace.trace_high = 7;
  Submit(std::move(second));
  Submit(Keyed(Drawing(3, 8)));
  Submit(Keyed(Drawing(4, 8), 6));
  EXPECT_THAT(Outcomes(), ElementsAre("4 INVALID_ARGUMENT joined 1 invalid"));
  core_->Cancel(3, clock_.Now());
  core_->OnCallDone(3, clock_.Now());
  clock_.Advance(absl::Seconds(2));
  ExecuteAll();
  for (const uint64_t id : {1, 2}) core_->OnCallDone(id, clock_.Now());
  Submit(Keyed(Drawing(5, 8)));
  core_->OnCallDone(5, clock_.Now());
  EXPECT_THAT(Outcomes(), ElementsAre("4 INVALID_ARGUMENT joined 1 invalid", "3 CANCELLED joined 1", "1 OK",
                                      "2 OK joined 1", "5 OK joined 1"));
  const RequestOutcome& joined = observer_.outcomes[3];
  EXPECT_EQ(joined.origin.trace.trace_high, 7u);
  EXPECT_GE(joined.timings.total, absl::Seconds(2));
}

TEST_F(JoinTest, TheSameKeyJoinsTheRunningRequest) {
  FakeGroup& group = AddGroup("g");
  NewRequest first = Keyed(Drawing(1, 8));
  const RequestPlan plan = first.plan;
  Submit(std::move(first));
  group.Execute(2 + 3);
  Submit(Keyed(Drawing(2, 8)));
  EXPECT_THAT(Read(2), ElementsAre("started", "progress 3"));
  ExecuteAll();
  for (const uint64_t id : {1, 2}) {
    EXPECT_THAT(Read(id), Contains("OK")) << id;
    EXPECT_EQ(pictures_[id], Picture(plan)) << id;
  }
  for (const Work& work : group.executed) EXPECT_EQ(work.request_id, 1u);
}

TEST_F(JoinTest, WhoJoinsAnAnswerHearsAllOfIt) {
  FakeGroup& group = AddGroup("g");
  NewRequest first = Keyed(Question(1, 9));
  const RequestPlan plan = first.plan;
  Submit(std::move(first));
  group.Execute(2 + 4);
  Submit(Keyed(Question(2, 9)));
  EXPECT_THAT(Read(2), ElementsAre("started", "delta " + Answer(plan, 4)));
  ExecuteAll();
  for (const uint64_t id : {1, 2}) {
    EXPECT_THAT(Read(id), Contains("OK")) << id;
    EXPECT_EQ(deltas_[id], Answer(plan, 9)) << id;
  }
}

TEST_F(JoinTest, AnotherRequestUnderTheSameKeyIsRefused) {
  AddGroup("g");
  Submit(Keyed(Drawing(1, 8)));
  Submit(Keyed(Drawing(2, 9), 6));
  EXPECT_THAT(Read(2), ElementsAre("INVALID_ARGUMENT"));
  EXPECT_THAT(std::string(ends_[2][0].status.message()), testing::HasSubstr("idempotency_key"));
  core_->OnCallDone(2, clock_.Now());
  ExecuteAll();
  EXPECT_THAT(Read(1), Contains("OK"));
}

TEST_F(JoinTest, AResultCanBeFetchedAgainWithinItsLifetime) {
  FakeGroup& group = AddGroup("g");
  NewRequest first = Keyed(Drawing(1, 3));
  const RequestPlan plan = first.plan;
  Submit(std::move(first));
  ExecuteAll();
  core_->OnCallDone(1, clock_.Now());
  EXPECT_TRUE(core_->idle());
  Tick(absl::Minutes(4));
  Submit(Keyed(Drawing(2, 3)));
  EXPECT_THAT(Read(2), ElementsAre("started", "progress 3", "result", "OK"));
  EXPECT_EQ(pictures_[2], Picture(plan));
  EXPECT_FALSE(core_->idle());
  core_->OnCallDone(2, clock_.Now());
  EXPECT_TRUE(core_->idle());
  Tick(absl::Minutes(2));
  group.executed.clear();
  Submit(Keyed(Drawing(3, 3)));
  ExecuteAll();
  EXPECT_FALSE(group.executed.empty());
}

TEST_F(JoinTest, ARequestWithoutAClientGoesOnForAWhile) {
  FakeGroup& group = AddGroup("g");
  NewRequest first = Keyed(Drawing(1, 8));
  const RequestPlan plan = first.plan;
  Submit(std::move(first));
  group.Execute(4);
  core_->Cancel(1, clock_.Now());
  core_->OnCallDone(1, clock_.Now());
  EXPECT_TRUE(core_->idle());
  Tick(absl::Seconds(20));
  EXPECT_TRUE(group.admitted.contains(1));
  Submit(Keyed(Drawing(2, 8)));
  Tick(absl::Seconds(20));
  ExecuteAll();
  EXPECT_THAT(Read(2), Contains("OK"));
  EXPECT_EQ(pictures_[2], Picture(plan));

  Submit(Drawing(3, 8));  // without a key
  group.Execute(4);
  core_->Cancel(3, clock_.Now());
  group.Execute(4);
  EXPECT_FALSE(group.admitted.contains(3));
}

TEST_F(JoinTest, NobodyComesSoItEnds) {
  FakeGroup& group = AddGroup("g");
  Submit(Keyed(Drawing(1, 100)));
  group.Execute(4);
  core_->OnCallDone(1, clock_.Now());
  Tick(absl::Seconds(1));
  Tick(absl::Seconds(31));
  group.Execute(3);
  EXPECT_THAT(group.admitted, IsEmpty());
  // The key is free again.
  Submit(Keyed(Drawing(2, 3)));
  EXPECT_THAT(Read(2), ElementsAre("started"));
}

TEST_F(JoinTest, OneOfTwoClientsMayLeaveOrStall) {
  FakeGroup& group = AddGroup("g");
  Submit(Keyed(Drawing(1, 8)));
  Submit(Keyed(Drawing(2, 8)));
  group.Execute(3);
  ASSERT_TRUE(streams_[1]->Take().has_value());  // and never sent
  Tick(absl::ZeroDuration());
  Tick(absl::Seconds(61));
  ExecuteAll();
  EXPECT_THAT(Read(2), Contains("OK"));
}

TEST_F(JoinTest, AFailureIsNotKept) {
  AddGroup("g");
  NewRequest request = Keyed(Drawing(1, 8));
  request.deadline = clock_.Now() + absl::Seconds(5);
  Submit(std::move(request));
  Tick(absl::Seconds(6));
  EXPECT_THAT(Read(1), Contains("DEADLINE_EXCEEDED"));
  Submit(Keyed(Drawing(2, 8)));
  ExecuteAll();
  EXPECT_THAT(Read(2), Contains("OK"));
  core_->OnCallDone(1, clock_.Now());
}

TEST_F(JoinTest, KeptResultsAreBounded) {
  options_.idempotency.max_results = 2;
  AddGroup("g");
  for (const uint64_t id : {1, 2, 3}) {
    NewRequest request = Drawing(id, 2);
    request.idempotency_key = absl::StrCat("key", id);
    Submit(std::move(request));
    ExecuteAll();
    core_->OnCallDone(id, clock_.Now());
  }
  const auto again = [&](uint64_t id, const char* key) {
    NewRequest request = Drawing(id, 2);
    request.idempotency_key = key;
    Submit(std::move(request));
    return Heard(id);
  };
  EXPECT_EQ(again(11, "key3"), "started, progress 2, result, OK");
  EXPECT_EQ(again(12, "key2"), "started, progress 2, result, OK");
  EXPECT_EQ(again(13, "key1"), "started");
}

TEST_F(JoinTest, AStreamThatIsGoneDoesNotJoin) {
  AddGroup("g");
  Submit(Keyed(Drawing(1, 8)));
  NewRequest gone = Keyed(Drawing(2, 8));
  gone.stream->SetCancelled();
  Submit(std::move(gone));
  EXPECT_THAT(Read(2), ElementsAre("CANCELLED"));
  core_->Cancel(2, clock_.Now());
  core_->OnCallDone(2, clock_.Now());
  ExecuteAll();
  EXPECT_THAT(Read(1), Contains("OK"));
}

}  // namespace
}  // namespace lancet
