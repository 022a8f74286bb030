#include "coordinator/group/group_session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "tests/coordinator/testing/fake_rank_link.h"

namespace lancet {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

const absl::Time kStart = absl::FromUnixSeconds(1000);
constexpr absl::Duration kPatience = absl::InfiniteDuration();  // so that the session's own limit holds

class GroupSessionTest : public ::testing::Test {
 protected:
  GroupSessionTest() : session_(Options(), {&links_[0], &links_[1]}) { session_.Start(kStart); }

  static GroupSession::Options Options() {
    GroupSession::Options options;
    options.epoch = 7;
    options.segment = "/segment";
    options.ready_timeout = absl::Seconds(60);
    options.iteration_timeout = absl::Seconds(30);
    return options;
  }

  void MakeReady() {
    for (int rank : {0, 1}) ASSERT_TRUE(session_.OnReady(rank, ReadyMessage{7}).ok());
    for (FakeRankLink& link : links_) link.TakeSent();
  }

  static std::vector<Work> Step(int index) {
    return {Work{5, WorkKind::kDenoise, index, PreviewMethod::kNone}};
  }

  static DoneMessage Done(uint64_t number, int index, double seconds = 0.5) {
    DoneMessage done{.epoch = 7, .number = number, .results = {}};
    done.results.emplace_back();
    done.results[0].request_id = 5;
    done.results[0].kind = WorkKind::kDenoise;
    done.results[0].index = index;
    done.results[0].seconds = seconds;
    return done;
  }

  FakeRankLink links_[2];
  GroupSession session_;
};

TEST_F(GroupSessionTest, FormsAndServesWhenEveryRankIsReady) {
  for (FakeRankLink& link : links_) {
    const std::vector<FormMessage> forms = link.Take<FormMessage>();
    ASSERT_THAT(forms, SizeIs(1));
    EXPECT_EQ(forms[0].epoch, 7u);
    EXPECT_EQ(forms[0].segment, "/segment");
    EXPECT_EQ(forms[0].world_size, 2);
  }
  EXPECT_TRUE(session_.OnReady(1, ReadyMessage{7}).ok());
  EXPECT_FALSE(session_.serving());
  EXPECT_TRUE(session_.OnReady(0, ReadyMessage{6}).ok());  // of an older epoch
  EXPECT_FALSE(session_.serving());
  EXPECT_TRUE(session_.OnReady(0, ReadyMessage{7}).ok());
  EXPECT_TRUE(session_.serving());
  EXPECT_FALSE(session_.OnReady(0, ReadyMessage{7}).ok());
}

TEST_F(GroupSessionTest, EveryRankGetsTheSameNumberedCommands) {
  MakeReady();
  RequestPlan plan;
  plan.request_id = 5;
  session_.Admit(plan, kStart);
  session_.Iterate(Step(0), kPatience, kStart);
  session_.Release(5, kStart);
  for (FakeRankLink& link : links_) {
    const std::vector<CommandMessage> commands = link.Take<CommandMessage>();
    ASSERT_THAT(commands, SizeIs(3));
    for (uint64_t i = 0; i < 3; ++i) {
      EXPECT_EQ(commands[i].epoch, 7u);
      EXPECT_EQ(commands[i].number, i + 1);
    }
    EXPECT_EQ(std::get<AdmitCommand>(commands[0].command).plan.request_id, 5u);
    EXPECT_EQ(std::get<IterateCommand>(commands[1].command).work.at(0).index, 0);
    EXPECT_EQ(std::get<ReleaseCommand>(commands[2].command).request_id, 5u);
  }
}

TEST_F(GroupSessionTest, KeepsTwoIterationsInFlight) {
  MakeReady();
  EXPECT_TRUE(session_.CanIterate());
  session_.Iterate(Step(0), kPatience, kStart);
  EXPECT_TRUE(session_.CanIterate());
  session_.Iterate(Step(1), kPatience, kStart);
  EXPECT_FALSE(session_.CanIterate());
  ASSERT_TRUE(session_.OnDone(0, Done(1, 0), kStart).ok());
  EXPECT_FALSE(session_.CanIterate());  // rank 1 has not acknowledged
  ASSERT_TRUE(session_.OnDone(1, DoneMessage{7, 1, {}}, kStart).ok());
  EXPECT_TRUE(session_.CanIterate());
}

TEST_F(GroupSessionTest, AnIterationIsFinishedWhenAllRanksSaySoWithTheResultsOfRank0) {
  MakeReady();
  session_.Iterate(Step(0), kPatience, kStart);
  session_.Iterate(Step(1), kPatience, kStart);
  auto finished = session_.OnDone(1, DoneMessage{7, 1, {}}, kStart + absl::Seconds(1));
  ASSERT_TRUE(finished.ok());
  EXPECT_THAT(*finished, IsEmpty());
  ASSERT_TRUE(session_.OnDone(1, DoneMessage{7, 2, {}}, kStart + absl::Seconds(1)).ok());
  finished = session_.OnDone(0, Done(1, 0, 0.75), kStart + absl::Seconds(2));
  ASSERT_TRUE(finished.ok());
  ASSERT_THAT(*finished, SizeIs(1));
  EXPECT_EQ((*finished)[0].results.at(0).seconds, 0.75);
  EXPECT_EQ((*finished)[0].took, absl::Seconds(2));
  finished = session_.OnDone(0, Done(2, 1), kStart + absl::Seconds(5));
  ASSERT_TRUE(finished.ok());
  ASSERT_THAT(*finished, SizeIs(1));
  EXPECT_EQ((*finished)[0].took, absl::Seconds(3));  // since its predecessor finished
}

TEST_F(GroupSessionTest, RefusesNumbersOutOfOrderAndResultsThatDoNotMatch) {
  MakeReady();
  session_.Iterate(Step(0), kPatience, kStart);
  EXPECT_FALSE(session_.OnDone(0, Done(2, 0), kStart).ok());
  EXPECT_FALSE(session_.OnDone(0, Done(0, 0), kStart).ok());
  EXPECT_FALSE(session_.OnDone(0, Done(1, 3), kStart).ok());
}

TEST_F(GroupSessionTest, RefusesMissingResultsAndAMissingPicture) {
  MakeReady();
  session_.Iterate(Step(0), kPatience, kStart);
  const absl::Status missing = session_.OnDone(0, DoneMessage{7, 1, {}}, kStart).status();
  EXPECT_THAT(std::string(missing.message()), HasSubstr("0 results, expected 1"));
}

TEST_F(GroupSessionTest, ADecodeWithoutAPictureIsAnError) {
  MakeReady();
  session_.Iterate({Work{5, WorkKind::kDecode, 0, PreviewMethod::kNone}}, kPatience, kStart);
  DoneMessage done = Done(1, 0);
  done.results[0].kind = WorkKind::kDecode;
  EXPECT_THAT(std::string(session_.OnDone(0, std::move(done), kStart).status().message()),
              HasSubstr("no picture"));
}

TEST_F(GroupSessionTest, IgnoresWhatBelongsToAnOlderEpoch) {
  MakeReady();
  session_.Iterate(Step(0), kPatience, kStart);
  EXPECT_TRUE(session_.OnDone(0, DoneMessage{6, 99, {}}, kStart).ok());
  EXPECT_TRUE(session_.OnFault(0, FaultMessage{6, "old"}).ok());
  EXPECT_THAT(std::string(session_.OnFault(1, FaultMessage{7, "no memory"}).message()),
              HasSubstr("rank 1: no memory"));
}

TEST_F(GroupSessionTest, DeadlinesNameTheRankThatIsBehind) {
  EXPECT_TRUE(session_.CheckDeadlines(kStart + absl::Seconds(60)).ok());
  ASSERT_TRUE(session_.OnReady(0, ReadyMessage{7}).ok());
  EXPECT_THAT(std::string(session_.CheckDeadlines(kStart + absl::Seconds(61)).message()),
              HasSubstr("rank 1"));
  ASSERT_TRUE(session_.OnReady(1, ReadyMessage{7}).ok());
  EXPECT_TRUE(session_.CheckDeadlines(kStart + absl::Hours(1)).ok());  // idle is fine

  const absl::Time sent = kStart + absl::Hours(1);
  session_.Iterate(Step(0), kPatience, sent);
  session_.Iterate(Step(1), kPatience, sent);
  ASSERT_TRUE(session_.OnDone(0, Done(1, 0), sent + absl::Seconds(1)).ok());
  EXPECT_TRUE(session_.CheckDeadlines(sent + absl::Seconds(30)).ok());
  const absl::Status late = session_.CheckDeadlines(sent + absl::Seconds(31));
  EXPECT_EQ(late.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(late.message()), HasSubstr("rank 1 did not finish command 1"));
  // The second iteration has its own time, counted from when it could begin.
  ASSERT_TRUE(session_.OnDone(1, DoneMessage{7, 1, {}}, sent + absl::Seconds(30)).ok());
  EXPECT_TRUE(session_.CheckDeadlines(sent + absl::Seconds(59)).ok());
}

TEST_F(GroupSessionTest, AnIterationMayHaveLessTimeThanTheRest) {
  MakeReady();
  session_.Iterate(Step(0), absl::Seconds(3), kStart);
  EXPECT_TRUE(session_.CheckDeadlines(kStart + absl::Seconds(3)).ok());
  const absl::Status late = session_.CheckDeadlines(kStart + absl::Seconds(4));
  EXPECT_EQ(late.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(late.message()), HasSubstr("within 3s"));
  for (const int rank : {0, 1}) ASSERT_TRUE(session_.OnDone(rank, Done(1, 0), kStart).ok());
  session_.Release(5, kStart);
  EXPECT_TRUE(session_.CheckDeadlines(kStart + absl::Seconds(30)).ok());
  EXPECT_FALSE(session_.CheckDeadlines(kStart + absl::Seconds(31)).ok());
}

TEST_F(GroupSessionTest, AbortReachesEveryRank) {
  session_.Abort("rank 1 was lost");
  for (FakeRankLink& link : links_) {
    const std::vector<AbortMessage> aborts = link.Take<AbortMessage>();
    ASSERT_THAT(aborts, SizeIs(1));
    EXPECT_EQ(aborts[0].epoch, 7u);
    EXPECT_EQ(aborts[0].reason, "rank 1 was lost");
  }
}

TEST_F(GroupSessionTest, BoundsUnacknowledgedCommands) {
  MakeReady();
  for (int i = 0; i < 31; ++i) session_.Release(i, kStart);
  EXPECT_TRUE(session_.CanSend(1));
  EXPECT_FALSE(session_.CanSend(2));
  session_.Release(99, kStart);
  EXPECT_FALSE(session_.CanIterate());
}

}  // namespace
}  // namespace lancet
