#include "common/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/status_matchers.h"

namespace lancet {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(ParseJsonTest, ReadsAnObject) {
  const auto json = ParseJson(R"({"a": [1, 2.5, "x", null, true], "b": {"a": {}}})", "file");
  ASSERT_THAT(json, IsOk());
  EXPECT_EQ((*json)["a"][1], 2.5);
  EXPECT_TRUE((*json)["b"]["a"].is_object());
}

TEST(ParseJsonTest, RefusesBadText) {
  const struct {
    const char* text;
    const char* message;
  } kCases[] = {
      {"", "not valid JSON"},
      {"{", "not valid JSON"},
      {"{} x", "not valid JSON"},
      {"{\"a\": 1,}", "not valid JSON at byte"},
      {"{\"a\": \"\xff\"}", "not valid JSON"},
      {"{\"a\": 01}", "not valid JSON"},
      {"{\"a\": NaN}", "not valid JSON"},
      {"{\"a\": 1e999}", "not valid JSON"},
      {R"({"a": 1, "b": 2, "a": 3})", "key 'a' appears twice"},
      {R"({"x": {"a": 1, "a": 3}})", "key 'a' appears twice"},
      {R"([{"a": 1}, {"a": 1, "a": 1}])", "key 'a' appears twice"},
  };
  for (const auto& c : kCases) {
    EXPECT_THAT(ParseJson(c.text, "some.json"), Fails(absl::StatusCode::kInvalidArgument,
                                                      AllOf(HasSubstr("some.json"), HasSubstr(c.message))))
        << c.text;
  }
}

TEST(ParseJsonTest, BoundsSizeAndDepth) {
  EXPECT_THAT(ParseJson("[1, 2]", "f", {.max_bytes = 5}),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("6 bytes; the limit is 5")));
  EXPECT_THAT(ParseJson("[[[]]]", "f", {.max_depth = 3}), IsOk());
  EXPECT_THAT(ParseJson("[[[[]]]]", "f", {.max_depth = 3}),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("deeper than 3")));
  EXPECT_THAT(ParseJson(std::string(1 << 20, '['), "f"),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("deeper than 32")));
}

}  // namespace
}  // namespace lancet
