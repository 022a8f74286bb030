// All three tasks at once: an answer streams while two pictures are being denoised, and company changes
// nobody's bytes.
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gtest/gtest.h"
#include "tests/integration/cluster.h"
#include "tests/integration/requests.h"

namespace lancet {
namespace {

// More iterations than the answer has tokens, so that it comes to its end while the pictures are under way.
constexpr int kSteps = 90;
constexpr std::pair<int32_t, int32_t> kSize = {64, 64};  // steps that take little
constexpr char kExpected[] = LANCET_DEMO_MODEL "/expected/";

GenerationRequest Drawing() {
  GenerationRequest request = MakeRequest("a penguin above a bus, pink background", kSteps, 7);
  request.size = kSize;
  return request;
}

GenerationRequest Change() {
  GenerationRequest request = MakeRequest("remove the scooter", kSteps, 8);
  request.size = kSize;
  request.image = ReadBytes(absl::StrCat(kExpected, "edit_06.source.png"));
  return request;
}

DescriptionRequest Question() {
  return MakeQuestion(ReadBytes(absl::StrCat(kExpected, "question_05.png")), "Describe the picture.", 64);
}

void StreamAnAnswerWhileTwoPicturesAreDenoised(int world_size) {
  auto cluster = Cluster::Start(DemoCluster(world_size));
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  GenerationClient& client = (*cluster)->client();
  EventLog unwatched;
  const auto drawn_alone = client.Generate(Drawing(), &unwatched, nullptr);
  ASSERT_TRUE(drawn_alone.ok()) << drawn_alone.status();
  const auto changed_alone = client.Edit(Change(), &unwatched, nullptr);
  ASSERT_TRUE(changed_alone.ok()) << changed_alone.status();
  const auto answered_alone = client.Describe(Question(), &unwatched, nullptr);
  ASSERT_TRUE(answered_alone.ok()) << answered_alone.status();

  RunningRequest drawing(client, Drawing());
  RunningRequest change(client, Change());
  ASSERT_TRUE(drawing.AwaitSteps(1) && change.AwaitSteps(1)) << (*cluster)->Logs();
  EventLog events;
  int in_company = 0;  // deltas that came while both pictures were under way
  events.on_delta = [&] { in_company += !drawing.Ended() && !change.Ended() ? 1 : 0; };
  const auto answered = client.Describe(Question(), &events, nullptr);
  ASSERT_TRUE(answered.ok()) << answered.status() << (*cluster)->Logs();
  EXPECT_GE(in_company, 5) << "the answer came in " << events.deltas.size() << " deltas";
  EXPECT_EQ(absl::StrJoin(events.deltas, ""), answered->text);
  const auto drawn = drawing.Result();
  ASSERT_TRUE(drawn.ok()) << drawn.status();
  const auto changed = change.Result();
  ASSERT_TRUE(changed.ok()) << changed.status();

  EXPECT_EQ(answered->text, answered_alone->text);
  EXPECT_EQ(drawn->image.data, drawn_alone->image.data) << "company changed the drawing";
  EXPECT_EQ(changed->image.data, changed_alone->image.data) << "company changed the edit";
}

TEST(SharingTest, AnAnswerStreamsWhileTwoPicturesAreDenoisedByOne) {
  StreamAnAnswerWhileTwoPicturesAreDenoised(1);
}

TEST(SharingTest, AnAnswerStreamsWhileTwoPicturesAreDenoisedByTwo) {
  StreamAnAnswerWhileTwoPicturesAreDenoised(2);
}

}  // namespace
}  // namespace lancet
