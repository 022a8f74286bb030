// The demo model answers questions about pictures, word for word as an independent implementation did.
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/integration/cluster.h"
#include "tests/integration/requests.h"

namespace lancet {
namespace {

// Between the logits of the two likeliest tokens, at the closest of an answer: below this, rounding decides.
constexpr double kDecidedMargin = 0.5;
constexpr int kMaxNewTokens = 64;
constexpr size_t kQuestions = LANCET_PICTURES < 16 ? LANCET_PICTURES : 25;

// By a group of so many ranks. The tower's three heads don't divide by two.
void ExpectTheAnswersSeen(int world_size) {
  auto cluster = Cluster::Start(DemoCluster(world_size));
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  const std::string folder = LANCET_DEMO_MODEL "/expected/";
  std::ifstream file(folder + "questions.json");
  const nlohmann::json all = nlohmann::json::parse(file);
  ASSERT_EQ(all.size(), 25u);
  size_t asked = 0;
  for (const nlohmann::json& entry : all) {
    if (asked == kQuestions) break;
    if (entry["least_margin"] < kDecidedMargin) continue;
    ++asked;
    const std::string picture = entry["picture"];
    SCOPED_TRACE(picture);
    EventLog events;
    const auto result = (*cluster)->client().Describe(
        MakeQuestion(ReadBytes(folder + picture), entry["question"], kMaxNewTokens), &events, nullptr);
    ASSERT_TRUE(result.ok()) << result.status() << (*cluster)->Logs();
    EXPECT_EQ(result->text, entry["answer_seen"].get<std::string>());
    EXPECT_FALSE(result->cut);
    EXPECT_EQ(absl::StrJoin(events.deltas, ""), result->text);
  }
}

TEST(QuestionsTest, GroupOfOneGivesTheAnswersSeen) { ExpectTheAnswersSeen(1); }

TEST(QuestionsTest, GroupOfTwoGivesTheAnswersSeen) { ExpectTheAnswersSeen(2); }

}  // namespace
}  // namespace lancet
