#include "coordinator/dispatch/event_stream.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <variant>

#include "tests/coordinator/testing/fake_clock.h"

namespace lancet {
namespace {

class CountingWriter final : public StreamWriter {
 public:
  void OnReady() override { ++ready; }
  void Cut() override { ++cut; }
  std::atomic<int> ready{0};
  std::atomic<int> cut{0};
};

PreviewEvent Preview(int step) { return PreviewEvent{step, {}}; }
ProgressEvent Progress(int step) { return ProgressEvent{step, 10, {}, {}}; }

// A short name of what was taken: "queued 2", "started", "progress 1", "preview 1", "result", "end OK"; "-"
// for nothing.
std::string Take(EventStream& stream, bool sent = true) {
  const auto next = stream.Take();
  if (!next.has_value()) return "-";
  if (const auto* end = std::get_if<CallStatus>(&*next)) {
    return "end " + absl::StatusCodeToString(end->status.code());
  }
  if (sent) stream.Sent();
  const ClientEvent& event = std::get<ClientEvent>(*next);
  if (const auto* queued = std::get_if<QueuedEvent>(&event))
    return "queued " + std::to_string(queued->position);
  if (std::holds_alternative<StartedEvent>(event)) return "started";
  if (const auto* progress = std::get_if<ProgressEvent>(&event))
    return "progress " + std::to_string(progress->step);
  if (const auto* preview = std::get_if<PreviewEvent>(&event))
    return "preview " + std::to_string(preview->step);
  if (const auto* delta = std::get_if<DeltaEvent>(&event))
    return "delta " + delta->text + " " + std::to_string(delta->token_count);
  if (const auto* text = std::get_if<TextResultEvent>(&event)) return "text " + text->text;
  return "result";
}

class EventStreamTest : public ::testing::Test {
 protected:
  EventStreamTest() : stream_(&clock_), writer_(std::make_shared<CountingWriter>()) {
    stream_.SetWriter(writer_);
  }
  FakeClock clock_;
  EventStream stream_;
  std::shared_ptr<CountingWriter> writer_;
};

TEST_F(EventStreamTest, UnsentTextMergesAndIsNeverLost) {
  stream_.Push(StartedEvent{});
  stream_.Push(DeltaEvent{"a ", 1});
  stream_.Push(DeltaEvent{"pan", 2});
  EXPECT_EQ(Take(stream_), "started");
  EXPECT_EQ(Take(stream_, /*sent=*/false), "delta a pan 2");
  stream_.Push(DeltaEvent{"d", 3});
  stream_.Push(DeltaEvent{"a", 4});
  TextResultEvent whole;
  whole.text = "a panda";
  stream_.Push(whole);
  stream_.Push(DeltaEvent{"too late", 5});
  stream_.End({});
  EXPECT_EQ(Take(stream_), "-");
  stream_.Sent();
  EXPECT_EQ(Take(stream_), "delta da 4");
  EXPECT_EQ(Take(stream_), "text a panda");
  EXPECT_EQ(Take(stream_), "end OK");
}

TEST_F(EventStreamTest, TextThatWasWrittenIsSentBeforeAnError) {
  stream_.Push(DeltaEvent{"half an ans", 3});
  stream_.End({absl::UnavailableError("lost"), {}});
  EXPECT_EQ(Take(stream_), "delta half an ans 3");
  EXPECT_EQ(Take(stream_), "end UNAVAILABLE");
}

TEST_F(EventStreamTest, KeepsTheOrderOfTheApi) {
  stream_.Push(QueuedEvent{2, {}});
  EXPECT_EQ(Take(stream_), "queued 2");
  stream_.Push(StartedEvent{});
  stream_.Push(Progress(1));
  stream_.Push(Preview(1));
  stream_.Push(ResultEvent{});
  stream_.End({});
  EXPECT_EQ(Take(stream_), "started");
  EXPECT_EQ(Take(stream_), "progress 1");
  EXPECT_EQ(Take(stream_), "preview 1");
  EXPECT_EQ(Take(stream_), "result");
  EXPECT_EQ(Take(stream_), "end OK");
  EXPECT_EQ(Take(stream_), "-");
}

TEST_F(EventStreamTest, ANewerEventReplacesOneThatWasNotSent) {
  stream_.Push(QueuedEvent{5, {}});
  stream_.Push(QueuedEvent{3, {}});
  stream_.Push(StartedEvent{});  // and the queue is over
  for (int step = 1; step <= 9; ++step) {
    stream_.Push(Progress(step));
    if (step % 2 == 0) stream_.Push(Preview(step));
  }
  EXPECT_EQ(Take(stream_), "started");
  EXPECT_EQ(Take(stream_), "preview 8");  // older than the progress
  EXPECT_EQ(Take(stream_), "progress 9");
  EXPECT_EQ(Take(stream_), "-");
}

TEST_F(EventStreamTest, OneEventIsUnderWayAtATime) {
  stream_.Push(StartedEvent{});
  stream_.Push(Progress(1));
  EXPECT_EQ(Take(stream_, /*sent=*/false), "started");
  EXPECT_EQ(Take(stream_), "-");
  const int before = writer_->ready;
  stream_.Sent();
  EXPECT_GT(writer_->ready, before);
  EXPECT_EQ(Take(stream_), "progress 1");
}

TEST_F(EventStreamTest, AnErrorDropsWhatWasNotSentButStarted) {
  stream_.Push(StartedEvent{});
  stream_.Push(Progress(1));
  stream_.Push(Preview(1));
  stream_.End({absl::UnavailableError("lost"), {}});
  stream_.End({absl::OkStatus(), {}});  // too late
  stream_.Push(ResultEvent{});
  EXPECT_EQ(Take(stream_), "started");
  EXPECT_EQ(Take(stream_), "end UNAVAILABLE");
}

TEST_F(EventStreamTest, NothingFollowsAResultButTheEnd) {
  stream_.Push(ResultEvent{});
  stream_.Push(Preview(9));
  stream_.Push(Progress(9));
  stream_.End({});
  EXPECT_EQ(Take(stream_), "result");
  EXPECT_EQ(Take(stream_), "end OK");
}

TEST_F(EventStreamTest, TellsHowLongTheClientHasNotRead) {
  stream_.Push(StartedEvent{});
  clock_.Advance(absl::Seconds(5));
  EXPECT_EQ(stream_.Stalled(clock_.Now()), absl::ZeroDuration());
  EXPECT_EQ(Take(stream_, /*sent=*/false), "started");
  clock_.Advance(absl::Seconds(7));
  EXPECT_EQ(stream_.Stalled(clock_.Now()), absl::Seconds(7));
  stream_.Sent();
  EXPECT_EQ(stream_.Stalled(clock_.Now()), absl::ZeroDuration());
  stream_.CutWriter();
  EXPECT_EQ(writer_->cut, 1);
}

TEST_F(EventStreamTest, AWriterThatIsGoneIsNotCalled) {
  writer_.reset();
  stream_.Push(StartedEvent{});
  stream_.CutWriter();
  EXPECT_EQ(Take(stream_), "started");
}

// For TSan: producers, the writer and a canceller on threads of their own.
TEST_F(EventStreamTest, ManyThreads) {
  std::thread progress([this] {
    for (int i = 0; i < 1000; ++i) stream_.Push(Progress(i));
  });
  std::thread previews([this] {
    for (int i = 0; i < 1000; ++i) stream_.Push(Preview(i));
  });
  std::thread canceller([this] { stream_.SetCancelled(); });
  std::string last;
  std::thread writer([this, &last] {
    while (last != "end OK") {
      const std::string taken = Take(stream_);
      if (taken != "-") last = taken;
    }
  });
  progress.join();
  previews.join();
  canceller.join();
  stream_.Push(ResultEvent{});
  stream_.End({});
  writer.join();
  EXPECT_EQ(last, "end OK");
  EXPECT_TRUE(stream_.cancelled());
}

}  // namespace
}  // namespace lancet
