#include "coordinator/access/token_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace lancet {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string HashOf(absl::string_view token) { return absl::StrCat("sha256:", ToHex(Sha256(token))); }

TEST(ParseTokenFileTest, ReadsNamesHashesAndLimits) {
  const auto entries = ParseTokenFile(
      absl::StrCat("# people\n\nalice ", HashOf("a"), "\n  bob\t", HashOf("b"),
                   " max_concurrent=4 pixel_steps_per_minute=1000000 queue_share=0.25 admin \r\n"));
  ASSERT_TRUE(entries.ok()) << entries.status();
  ASSERT_EQ(entries->size(), 2u);
  EXPECT_EQ((*entries)[0].name, "alice");
  EXPECT_EQ((*entries)[0].hash, Sha256("a"));
  EXPECT_EQ((*entries)[0].limits.max_concurrent, 0);
  EXPECT_EQ((*entries)[0].limits.queue_share, 1);
  EXPECT_FALSE((*entries)[0].admin);
  EXPECT_EQ((*entries)[1].limits.max_concurrent, 4);
  EXPECT_EQ((*entries)[1].limits.pixel_steps_per_minute, 1000000);
  EXPECT_EQ((*entries)[1].limits.queue_share, 0.25);
  EXPECT_TRUE((*entries)[1].admin);
}

TEST(ParseTokenFileTest, NamesLineAndFieldAndNeverATokenThatStandsThereByMistake) {
  const std::string hash = HashOf("a");
  const std::pair<std::string, std::string> table[] = {
      {"alice", "sha256:"},
      {"alice s3cret", "sha256:"},
      {"alice sha256:s3cret", "64 hex digits"},
      {absl::StrCat("al*ice ", hash), "the name"},
      {absl::StrCat(std::string(65, 'a'), " ", hash), "the name"},
      {absl::StrCat("alice ", hash, " max_concurrent=0"), "max_concurrent=0"},
      {absl::StrCat("alice ", hash, " max_concurrent=x"), "max_concurrent=x"},
      {absl::StrCat("alice ", hash, " pixel_steps_per_minute=-1"), "pixel_steps_per_minute=-1"},
      {absl::StrCat("alice ", hash, " queue_share=1.5"), "queue_share=1.5"},
      {absl::StrCat("alice ", hash, " queue_share=nan"), "queue_share=nan"},
      {absl::StrCat("alice ", hash, " root"), "'root'"},
      {absl::StrCat("alice ", hash, "\nalice ", HashOf("b")), "alice was there before"},
      {absl::StrCat("alice ", hash, "\nbob ", hash), "the same token"},
  };
  for (const auto& [text, reason] : table) {
    const auto entries = ParseTokenFile(absl::StrCat("# one\n", text));
    EXPECT_EQ(entries.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(entries.status().message()), HasSubstr(reason));
    EXPECT_THAT(std::string(entries.status().message()), HasSubstr("line "));
    EXPECT_THAT(std::string(entries.status().message()), Not(HasSubstr("s3cret")));
  }
}

TEST(ParseTokenFileTest, HasABoundedNumberOfThem) {
  std::string text;
  for (int i = 0; i < 1001; ++i) absl::StrAppend(&text, "t", i, " ", HashOf(absl::StrCat(i)), "\n");
  EXPECT_THAT(std::string(ParseTokenFile(text).status().message()), HasSubstr("more than 1000"));
}

TEST(DigestTest, IsSha256AndHmac) {
  EXPECT_EQ(ToHex(Sha256("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  // RFC 4231, case 2.
  EXPECT_EQ(ToHex(HmacSha256("Jefe", "what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  EXPECT_TRUE(EqualInConstantTime("abc", "abc"));
  EXPECT_FALSE(EqualInConstantTime("abc", "abd"));
  EXPECT_FALSE(EqualInConstantTime("abc", "ab"));
  EXPECT_EQ(*ParseDigest(ToHex(Sha256("x"))), Sha256("x"));
  EXPECT_FALSE(ParseDigest(std::string(64, 'A')).ok());
}

}  // namespace
}  // namespace lancet
