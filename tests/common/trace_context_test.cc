#include "common/trace_context.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace lancet {
namespace {

constexpr char kParent[] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

TEST(ParseTraceparentTest, ReadsWhatTheRecommendationShows) {
  const auto context = ParseTraceparent(kParent);
  ASSERT_TRUE(context.ok()) << context.status();
  EXPECT_EQ(context->TraceId(), "4bf92f3577b34da6a3ce929d0e0e4736");
  EXPECT_EQ(context->span, 0x00f067aa0ba902b7u);
  EXPECT_EQ(context->flags, 1);
  EXPECT_EQ(context->ToTraceparent(), kParent);
}

TEST(ParseTraceparentTest, ReadsLaterVersionsAsThisOne) {
  EXPECT_TRUE(ParseTraceparent("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").ok());
  EXPECT_TRUE(ParseTraceparent("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more").ok());
}

TEST(ParseTraceparentTest, RefusesEverythingElseWithoutRepeatingIt) {
  const char* const table[] = {
      "",
      "00",
      "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
      "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
      "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
      "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
      "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
      "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
      "00-4bf92f3577b34da6a3ce929d0e0e47361-0f067aa0ba902b7-01",
      "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0\n",
  };
  for (const char* text : table) {
    const auto context = ParseTraceparent(text);
    EXPECT_EQ(context.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(context.status().message()), ::testing::Not(::testing::HasSubstr("4bf92f")));
  }
}

TEST(ContinueTraceTest, KeepsTheTraceAndMakesASpan) {
  const TraceContext context = ContinueTrace(kParent, [] { return uint64_t{5}; });
  EXPECT_EQ(context.ToTraceparent(), "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000005-01");
}

TEST(ContinueTraceTest, BeginsATraceWhereThereIsNone) {
  const TraceContext context = ContinueTrace("nonsense", [] { return uint64_t{7}; });
  EXPECT_EQ(context.ToTraceparent(), "00-00000000000000070000000000000007-0000000000000007-00");
  // Zero would be no id.
  EXPECT_TRUE(ParseTraceparent(ContinueTrace("", [] { return uint64_t{0}; }).ToTraceparent()).ok());
}

}  // namespace
}  // namespace lancet
