#include "tests/chaos/chaos_trace.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lancet {
namespace {

using testing::ElementsAre;

absl::Time At(double seconds) {
  absl::Time day;
  EXPECT_TRUE(absl::ParseTime(absl::RFC3339_full, "2026-01-02T03:04:00Z", &day, nullptr));
  return day + absl::Seconds(seconds);
}

constexpr char kLog[] =
    "2026-01-02T03:04:01.000Z I group serves group=g0 epoch=1\n"
    "2026-01-02T03:04:02.500Z W rank lost group=g0 rank=1 reason=\"its stream ended\"\n"
    "2026-01-02T03:04:02.600Z W request lost with its group request_id=1 trace_id=aa losses=1\n"
    "2026-01-02T03:04:02.600Z W request lost with its group request_id=2 trace_id=bb losses=1\n"
    "no time I group serves\n"
    "2026-01-02T03:04:04.000Z I request goes on request_id=1 trace_id=aa group=g1\n"
    "2026-01-02T03:04:06.000Z I group serves group=g0 epoch=2\n";

TEST(ChaosTraceTest, TellsWhatConcernsTheRequestInOrder) {
  const std::vector<ChaosEvent> faults = {{At(0), At(1), "rank killed 0"},
                                          {At(2.4), At(2.7), "rank killed 1"}};
  EXPECT_THAT(PhasesOfSilence(kLog, faults, "trace_id=aa", At(2), At(5)),
              ElementsAre("+0.400 s fault: rank killed 1, for 0.3 s",
                          "+0.500 s rank lost group=g0 rank=1 reason=\"its stream ended\"",
                          "+0.600 s request lost with its group request_id=1 trace_id=aa losses=1",
                          "+2.000 s request goes on request_id=1 trace_id=aa group=g1"));
}

TEST(ChaosTraceTest, SaysHowMuchIsLeftOut) {
  EXPECT_THAT(PhasesOfSilence(kLog, {}, "trace_id=aa", At(0), At(10), /*most=*/1),
              ElementsAre("+1.000 s group serves group=g0 epoch=1", "and 4 more"));
}

}  // namespace
}  // namespace lancet
