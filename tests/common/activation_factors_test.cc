#include "common/activation_factors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/glob.h"
#include "tests/testing/status_matchers.h"

namespace lancet {
namespace {

using ::testing::HasSubstr;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

constexpr char kPrint[] = "0123456789abcdef0123456789abcdef";
constexpr char kGood[] =
    R"({"version": 1, "fingerprint": "0123456789abcdef0123456789abcdef", "factors": {"a.b": 0.25, "c": 3}})";

absl::StatusOr<ActivationFactors> Parse(absl::string_view text) {
  return ParseActivationFactors(text, "f.json", kPrint, {"a.b", "c"});
}

TEST(ActivationFactorsTest, ReadsAFactorForEveryLinear) {
  const auto factors = Parse(kGood);
  ASSERT_THAT(factors, IsOk());
  EXPECT_THAT(*factors, UnorderedElementsAre(Pair("a.b", 0.25f), Pair("c", 3.0f)));
}

TEST(ActivationFactorsTest, NamesWhatIsWrong) {
  struct Case {
    const char* from;
    const char* to;
    const char* message;
  };
  for (const Case& c : {
           Case{"\"version\": 1", "\"version\": 2", "version is not 1"},
           Case{"\"version\": 1", "\"version\": 1.0", "version is not 1"},
           Case{"\"version\": 1, ", "", "version is missing"},
           Case{"abcdef\"", "abcdee\"", "the factors are those of other weights"},
           Case{"\"0123456789abcdef0123456789abcdef\"", "7", "fingerprint is not a string"},
           Case{"\"factors\"", "\"factor\"", "factors is missing"},
           Case{"\"version\": 1", "\"version\": 1, \"more\": 1", "unknown key 'more'"},
           Case{"{\"a.b\": 0.25, \"c\": 3}", "[]", "factors is not an object"},
           Case{"0.25", "\"0.25\"", "a.b is not a number"},
           Case{"0.25", "0", "a.b is 0; expected a positive number"},
           Case{"0.25", "-1", "a.b is -1"},
           Case{"0.25", "1e-39", "a.b is 1e-39"},
           Case{"0.25", "1e39", "a.b is 1e+39"},
           Case{"0.25", "null", "a.b is not a number"},
           Case{"\"a.b\": 0.25, ", "", "a.b is missing"},
           Case{"\"c\": 3", "\"c\": 3, \"d\": 1", "'d' is no Linear"},
           Case{"\"c\": 3", "\"c\": 3, \"c\": 3", "'c' appears twice"},
           Case{"\"c\": 3", "\"c\": [[[[[3]]]]]", "nested deeper"},
           Case{"}}", "}", "not valid JSON"},
       }) {
    SCOPED_TRACE(c.message);
    const std::string text = absl::StrReplaceAll(kGood, {{c.from, c.to}});
    ASSERT_NE(text, kGood);
    EXPECT_THAT(Parse(text), Fails(absl::StatusCode::kInvalidArgument,
                                   ::testing::AllOf(HasSubstr("f.json: "), HasSubstr(c.message))));
  }
  EXPECT_THAT(Parse("[]"), Fails(absl::StatusCode::kInvalidArgument, HasSubstr("is not a JSON object")));
  EXPECT_THAT(Parse(absl::StrCat(kGood, std::string(kMaxActivationFactorsBytes, ' '))),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("the limit is")));
}

TEST(GlobTest, MatchesWholeNames) {
  for (const char* pattern :
       {"a.b.c", "*", "a*", "*c", "a*c", "*b*", "?.b.?", "a.*.c", "**", "a.b.c*", "*.*.*"}) {
    EXPECT_TRUE(GlobMatches(pattern, "a.b.c")) << pattern;
  }
  for (const char* pattern : {"", "a", "b", "a.b", ".b.", "*b", "a.b.c?", "A.B.C", "a?c", "*d*", "[a].b.c"}) {
    EXPECT_FALSE(GlobMatches(pattern, "a.b.c")) << pattern;
  }
  EXPECT_TRUE(GlobMatches("", ""));
  EXPECT_TRUE(GlobMatches("*", ""));
  EXPECT_TRUE(GlobMatches("*ab", "aabab"));
  // Many stars take no more than their product with the name.
  std::string stars;
  for (int i = 0; i < 100; ++i) stars += "*a";
  EXPECT_FALSE(GlobMatches(stars + "b", std::string(2000, 'a')));
}

}  // namespace
}  // namespace lancet
