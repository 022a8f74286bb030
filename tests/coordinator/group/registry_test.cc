#include "coordinator/group/registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tests/coordinator/testing/fake_rank_link.h"

namespace lancet {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::StartsWith;

class Recorder final : public GroupObserver {
 public:
  void OnServing(Group& group) override { events.push_back("serving " + group.name()); }
  void OnFinished(Group& group, GroupSession::Finished) override {
    events.push_back("finished " + group.name());
  }
  void OnLost(Group& group, const absl::Status& reason) override {
    EXPECT_EQ(group.session(), nullptr);
    events.push_back("lost " + group.name());
    reasons.emplace_back(reason.message());
  }
  void OnLeaving(Group& group, absl::Time until) override {
    events.push_back("leaving " + group.name());
    leaving_until = until;
  }
  std::vector<std::string> events;
  std::vector<std::string> reasons;
  absl::Time leaving_until;
};

class RegistryTest : public ::testing::Test {
 protected:
  RegistryTest() : registry_(Options(), &recorder_) {}

  static Registry::Options Options() {
    Registry::Options options;
    options.fingerprint = "f00d";
    options.max_groups = 2;
    options.max_world_size = 8;
    options.max_unregistered = 3;
    options.random = [next = uint64_t{0xabc}]() mutable { return next++; };
    options.pid = 42;
    return options;
  }

  static RegisterMessage Rank(int rank, int world_size = 2) {
    RegisterMessage info;
    info.group = "g";
    info.rank = rank;
    info.world_size = world_size;
    info.fingerprint = "f00d";
    info.device = "cpu";
    info.host = "here";
    info.max_latents = 4096 - rank;
    info.max_rows = 1000 + rank;
    info.cache_tokens = 5000 - rank;
    info.max_requests = 8 + rank;
    info.has_vision = rank != 1;
    info.max_patches = rank == 1 ? 0 : 64;
    return info;
  }

  std::shared_ptr<FakeRankLink> Connect() {
    auto link = std::make_shared<FakeRankLink>();
    registry_.OnConnected(link, now_);
    return link;
  }
  std::shared_ptr<FakeRankLink> Join(RegisterMessage info) {
    auto link = Connect();
    registry_.OnMessage(link, std::move(info), now_);
    return link;
  }
  // Two ranks that serve; returns the epoch.
  uint64_t Serve(const std::shared_ptr<FakeRankLink>& a, const std::shared_ptr<FakeRankLink>& b) {
    const std::vector<FormMessage> forms = a->Take<FormMessage>();
    b->TakeSent();
    if (forms.size() != 1) return 0;
    for (const auto& link : {a, b}) registry_.OnMessage(link, ReadyMessage{forms[0].epoch}, now_);
    return forms[0].epoch;
  }
  Group* group() {
    const auto found = registry_.groups().find("g");
    return found == registry_.groups().end() ? nullptr : found->second.get();
  }
  void AnswerPings(const std::shared_ptr<FakeRankLink>& link) {
    for (const PingMessage& ping : link->Take<PingMessage>()) {
      registry_.OnMessage(link, PongMessage{ping.id}, now_);
    }
  }

  absl::Time now_ = absl::FromUnixSeconds(1000);
  Recorder recorder_;
  Registry registry_;
};

TEST_F(RegistryTest, AGroupFormsWhenAllRanksAreThere) {
  const auto one = Join(Rank(1));
  EXPECT_THAT(one->TakeSent(), IsEmpty());
  const auto zero = Join(Rank(0));
  const std::vector<FormMessage> forms = zero->Take<FormMessage>();
  ASSERT_THAT(forms, SizeIs(1));
  EXPECT_EQ(forms[0].epoch, 1u);
  EXPECT_EQ(forms[0].segment, "lancet-42-g-1-0000000000000abc");
  ASSERT_THAT(one->Take<FormMessage>(), SizeIs(1));
  EXPECT_FALSE(group()->serving());
  registry_.OnMessage(zero, ReadyMessage{1}, now_);
  registry_.OnMessage(one, ReadyMessage{1}, now_);
  EXPECT_TRUE(group()->serving());
  const GroupLimits limits = group()->limits();
  EXPECT_EQ(limits.max_latents, 4095);
  EXPECT_EQ(limits.max_rows, 1000);
  EXPECT_EQ(limits.cache_tokens, 4999);
  EXPECT_EQ(limits.max_requests, 8);
  EXPECT_EQ(limits.max_patches, 0);
  EXPECT_FALSE(limits.has_vision);
  EXPECT_THAT(recorder_.events, ElementsAre("serving g"));
}

TEST_F(RegistryTest, RefusesWhatCannotWork) {
  const auto member = Join(Rank(0));
  struct Case {
    const char* what;
    RegisterMessage info;
    bool permanent;
  };
  std::vector<Case> cases;
  cases.push_back({"fingerprint", Rank(1), true});
  cases.back().info.fingerprint = "beef";
  cases.push_back({"name", Rank(1), true});
  cases.back().info.group = "../g";
  cases.push_back({"rank 2", Rank(2), true});
  cases.push_back({"rank -1", Rank(-1), true});
  cases.push_back({"world_size 9", Rank(1, 9), true});
  cases.push_back({"world_size 0", Rank(0, 0), true});
  cases.push_back({"max_latents 0", Rank(1), true});
  cases.back().info.max_latents = 0;
  cases.push_back({"max_rows 0", Rank(1), true});
  cases.back().info.max_rows = 0;
  cases.push_back({"cache_tokens 0", Rank(1), true});
  cases.back().info.cache_tokens = 0;
  cases.push_back({"max_requests 0", Rank(1), true});
  cases.back().info.max_requests = 0;
  cases.push_back({"world_size 4 does not agree", Rank(1, 4), false});
  cases.push_back({"is taken", Rank(0), false});
  cases.push_back({"host 'there'", Rank(1), false});
  cases.back().info.host = "there";
  for (const Case& c : cases) {
    const auto link = Join(c.info);
    const std::vector<RefuseMessage> refusals = link->Take<RefuseMessage>();
    ASSERT_THAT(refusals, SizeIs(1)) << c.what;
    EXPECT_THAT(refusals[0].reason, HasSubstr(c.what));
    EXPECT_EQ(refusals[0].permanent, c.permanent) << c.what;
    EXPECT_TRUE(link->closed());
    EXPECT_TRUE(link->flushed());
    registry_.OnClosed(link, absl::OkStatus(), now_);
  }
  EXPECT_FALSE(member->closed());
  EXPECT_THAT(recorder_.events, IsEmpty());
}

TEST_F(RegistryTest, RanksOfSeveralHostsAreToldEachOthersAddresses) {
  RegisterMessage zero = Rank(0);
  zero.collective_address = "10.0.0.1:7000";
  RegisterMessage one = Rank(1);
  one.host = "there";
  const auto first = Join(zero);
  EXPECT_THAT(Join(one)->Take<RefuseMessage>(), SizeIs(1));
  one.collective_address = "10.0.0.2:7000";
  const auto second = Join(one);
  for (const auto& link : {first, second}) {
    const std::vector<FormMessage> forms = link->Take<FormMessage>();
    ASSERT_THAT(forms, SizeIs(1));
    EXPECT_THAT(forms[0].collective_addresses, ElementsAre("10.0.0.1:7000", "10.0.0.2:7000"));
  }
}

TEST_F(RegistryTest, RanksOfOneHostShareMemoryWhateverTheirAddresses) {
  const auto link = Join(Rank(0));
  RegisterMessage one = Rank(1);
  one.collective_address = "10.0.0.2:7000";
  Join(one);
  const std::vector<FormMessage> forms = link->Take<FormMessage>();
  ASSERT_THAT(forms, SizeIs(1));
  EXPECT_THAT(forms[0].collective_addresses, IsEmpty());
}

TEST_F(RegistryTest, ADeadRankEndsTheEpochAndItsPlaceCanBeFilled) {
  const auto zero = Join(Rank(0));
  const auto one = Join(Rank(1));
  ASSERT_EQ(Serve(zero, one), 1u);
  registry_.OnClosed(one, absl::UnavailableError("stream broke"), now_);
  EXPECT_THAT(recorder_.events, ElementsAre("serving g", "lost g"));
  EXPECT_THAT(recorder_.reasons[0], HasSubstr("rank 1 was lost"));
  EXPECT_THAT(zero->Take<AbortMessage>(), SizeIs(1));
  EXPECT_FALSE(zero->closed());
  EXPECT_FALSE(group()->serving());

  now_ += absl::Seconds(5);
  const auto again = Join(Rank(1));
  EXPECT_EQ(Serve(zero, again), 2u);
  EXPECT_TRUE(group()->serving());
}

TEST_F(RegistryTest, ASilentRankIsDroppedAfterTwoSeconds) {
  const auto zero = Join(Rank(0));
  const auto one = Join(Rank(1));
  Serve(zero, one);
  const absl::Time frozen = now_;
  while (recorder_.events.size() < 2 && now_ < frozen + absl::Seconds(10)) {
    registry_.Tick(now_);
    AnswerPings(zero);
    now_ += absl::Milliseconds(100);
  }
  EXPECT_THAT(recorder_.events, ElementsAre("serving g", "lost g"));
  EXPECT_LE(now_ - frozen, absl::Milliseconds(2200));
  EXPECT_TRUE(one->closed());
  EXPECT_FALSE(zero->closed());
}

TEST_F(RegistryTest, WhatACutStreamStillSaysDoesNotTouchItsSuccessor) {
  const auto zero = Join(Rank(0));
  const auto old = Join(Rank(1));
  Serve(zero, old);
  for (int i = 0; i < 30; ++i) {
    registry_.Tick(now_);
    AnswerPings(zero);
    now_ += absl::Milliseconds(100);
  }
  ASSERT_TRUE(old->closed());
  const auto fresh = Join(Rank(1));
  zero->TakeSent();
  registry_.OnMessage(old, FaultMessage{2, "late"}, now_);
  registry_.OnClosed(old, absl::UnavailableError("gone"), now_);
  EXPECT_FALSE(fresh->closed());
  EXPECT_TRUE(group()->complete());
  EXPECT_THAT(recorder_.events, ElementsAre("serving g", "lost g"));
}

TEST_F(RegistryTest, AFaultKeepsTheRanksAndFormsAnewAfterABackoffThatGrows) {
  const auto zero = Join(Rank(0));
  const auto one = Join(Rank(1));
  absl::Duration last = absl::ZeroDuration();
  for (uint64_t epoch = 1; epoch <= 4; ++epoch) {
    ASSERT_EQ(group()->session()->epoch(), epoch);
    registry_.OnMessage(zero, FaultMessage{epoch, "warm-up failed"}, now_);
    ASSERT_EQ(group()->session(), nullptr);
    const absl::Time lost = now_;
    while (group()->session() == nullptr && now_ < lost + absl::Minutes(1)) {
      now_ += absl::Milliseconds(50);
      registry_.Tick(now_);
      AnswerPings(zero);
      AnswerPings(one);
    }
    EXPECT_GT(now_ - lost, last);
    last = now_ - lost;
  }
  EXPECT_FALSE(zero->closed());
  EXPECT_FALSE(one->closed());
}

TEST_F(RegistryTest, ALeavingRankEndsTheEpochWhenItGoesAndNoneBeginsWithIt) {
  const auto zero = Join(Rank(0));
  const auto one = Join(Rank(1));
  Serve(zero, one);
  EXPECT_FALSE(group()->leaving());
  registry_.OnMessage(one, LeavingMessage{7}, now_);
  EXPECT_THAT(recorder_.events, ElementsAre("serving g", "leaving g"));
  EXPECT_EQ(recorder_.leaving_until, now_ + absl::Seconds(7));
  EXPECT_TRUE(group()->leaving());
  EXPECT_TRUE(group()->serving());
  group()->Dismiss();
  group()->Dismiss();
  EXPECT_THAT(one->Take<ShutdownMessage>(), SizeIs(1));
  EXPECT_THAT(zero->Take<ShutdownMessage>(), IsEmpty());
  // A fault in the meantime: no epoch with a rank that leaves.
  registry_.OnMessage(zero, FaultMessage{1, "broke"}, now_);
  now_ += absl::Seconds(1);
  registry_.Tick(now_);
  EXPECT_EQ(group()->session(), nullptr);
  registry_.OnClosed(one, absl::OkStatus(), now_);
  EXPECT_FALSE(group()->leaving());
  Join(Rank(1));
  EXPECT_NE(group()->session(), nullptr);
}

TEST_F(RegistryTest, NumericsSayHowManyRanksComputeHow) {
  RegisterMessage zero = Rank(0);
  zero.numerics = "cpu w4a16";
  RegisterMessage one = Rank(1);
  one.numerics = "cpu w4a16";
  Join(zero);
  const auto link = Join(one);
  EXPECT_EQ(group()->numerics(), "2 x cpu w4a16");
  registry_.OnClosed(link, absl::OkStatus(), now_);
  one.numerics = "cuda w4a16";
  Join(one);
  EXPECT_EQ(group()->numerics(), "2 x cpu w4a16 cuda w4a16");
}

TEST_F(RegistryTest, AnotherMessageFirstOrSilenceIsRefused) {
  const auto rude = Connect();
  registry_.OnMessage(rude, ReadyMessage{1}, now_);
  EXPECT_THAT(rude->Take<RefuseMessage>(), SizeIs(1));
  EXPECT_TRUE(rude->closed());

  const auto silent = Connect();
  now_ += absl::Seconds(11);
  registry_.Tick(now_);
  EXPECT_TRUE(silent->closed());

  std::vector<std::shared_ptr<FakeRankLink>> crowd;
  for (int i = 0; i < 4; ++i) crowd.push_back(Connect());
  EXPECT_FALSE(crowd[2]->closed());
  EXPECT_TRUE(crowd[3]->closed());
}

TEST_F(RegistryTest, ARankThatRegistersTwiceIsDropped) {
  const auto zero = Join(Rank(0));
  registry_.OnMessage(zero, Rank(0), now_);
  EXPECT_TRUE(zero->closed());
  registry_.Tick(now_);
  EXPECT_THAT(registry_.groups(), IsEmpty());
  registry_.OnClosed(zero, absl::OkStatus(), now_);
}

TEST_F(RegistryTest, GroupsAreBoundedAndEmptyOnesForgotten) {
  RegisterMessage info = Rank(0);
  const auto first = Join(info);
  info.group = "h";
  Join(info);
  info.group = "i";
  EXPECT_THAT(Join(info)->Take<RefuseMessage>(), SizeIs(1));
  registry_.OnClosed(first, absl::OkStatus(), now_);
  registry_.Tick(now_);
  EXPECT_THAT(registry_.groups(), SizeIs(1));
  EXPECT_THAT(Join(info)->Take<RefuseMessage>(), IsEmpty());
}

}  // namespace
}  // namespace lancet
