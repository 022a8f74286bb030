#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "coordinator/request/answer_text.h"
#include "coordinator/request/unicode.h"
#include "tests/coordinator/request/request_test_util.h"
#include "tests/coordinator/testing/byte_tokenizer.h"

namespace lancet {
namespace {

using ::testing::ElementsAre;

const char kReplacement[] = "\xEF\xBF\xBD";

class AnswerTextTest : public ::testing::Test {
 protected:
  // What is handed out byte by byte, the end last; empty parts left out.
  std::vector<std::string> Parts(const std::string& bytes) {
    AnswerText text(tokenizer_.get());
    std::vector<std::string> parts;
    std::string joined;
    const auto take = [&](std::string part) {
      EXPECT_EQ(FindInvalidUtf8(part), std::string::npos);
      joined += part;
      if (!part.empty()) parts.push_back(std::move(part));
    };
    for (const char byte : bytes) {
      auto part = text.Add(static_cast<uint8_t>(byte));
      EXPECT_TRUE(part.ok()) << part.status();
      if (part.ok()) take(*part);
    }
    take(text.Finish());
    EXPECT_EQ(joined, text.text());
    return parts;
  }
  std::string Whole(const std::string& bytes) {
    std::string whole;
    for (const std::string& part : Parts(bytes)) whole += part;
    return whole;
  }

  const std::unique_ptr<Tokenizer> tokenizer_ = ByteTokenizer();
};

TEST_F(AnswerTextTest, CodePointsAreNeverSplit) {
  EXPECT_THAT(Parts("a\xC3\xA9\xE4\xB8\x80\xF0\x9F\x90\xB1"),
              ElementsAre("a", "\xC3\xA9", "\xE4\xB8\x80", "\xF0\x9F\x90\xB1"));
}

TEST_F(AnswerTextTest, WhiteSpaceIsDroppedAtTheEndsAndKeptInside) {
  EXPECT_THAT(Parts(" \n\xE3\x80\x80x \n y\t \xC2\xA0"), ElementsAre("x", " \n y"));
  EXPECT_THAT(Parts(" \n "), ElementsAre());
  EXPECT_THAT(Parts(""), ElementsAre());
}

// The expectations are those of Python's bytes.decode("utf-8", "replace").
TEST_F(AnswerTextTest, BytesThatBecomeNothingAreReplacedOnceThatIsCertain) {
  const std::string r = kReplacement;
  EXPECT_THAT(Parts("\xE4\xB8"), ElementsAre(r));         // only at the end
  EXPECT_THAT(Parts("\xE4\xB8x"), ElementsAre(r + "x"));  // when the next byte shows it
  EXPECT_EQ(Whole("\x80"), r);
  EXPECT_EQ(Whole("\xC0\xAF"), r + r);
  EXPECT_EQ(Whole("\xED\xA0\x80"), r + r + r);
  EXPECT_EQ(Whole("\xF0\x80\x80\x41"), r + r + r + "A");
  EXPECT_EQ(Whole("\xF0\x9F\x90\x41"), r + "A");
  EXPECT_EQ(Whole("\xF4\x90\x80\x80"), r + r + r + r);
  EXPECT_EQ(Whole("\xE4\xE4\xB8\x80"), r + "\xE4\xB8\x80");
  EXPECT_EQ(Whole("\xFF\xFE"), r + r);
}

TEST_F(AnswerTextTest, ValidTextComesOutAsItWentIn) {
  const nlohmann::json golden =
      ReadJsonFile(absl::StrCat(LANCET_TEST_DATA, "/tokenizer_tiny/tokenizer_tiny.json"));
  const auto tokenizer = LoadTokenizer(TinyTokenizer());
  ASSERT_NE(tokenizer, nullptr);
  for (const nlohmann::json& c : golden.at("cases")) {
    const auto ids = c.at("ids").get<std::vector<int32_t>>();
    AnswerText text(tokenizer.get());
    std::string joined;
    for (const int32_t id : ids) joined += text.Add(id).value();
    joined += text.Finish();
    EXPECT_EQ(joined, StripWhitespace(tokenizer->Decode(ids).value())) << c.at("text").dump();
  }
}

TEST_F(AnswerTextTest, AnyBytesGiveValidTextThatDoesNotDependOnTheCuts) {
  std::mt19937 random(3);
  for (int run = 0; run < 2000; ++run) {
    std::string bytes;
    for (int i = static_cast<int>(random() % 12); i >= 0; --i) {
      // Mostly bytes that look like the start or middle of a code point.
      bytes += static_cast<char>(random() % 4 == 0 ? random() % 128 : 128 + random() % 128);
    }
    const std::string whole = Whole(bytes);  // checks that it is valid
    EXPECT_EQ(whole, StripWhitespace(whole));
  }
}

TEST_F(AnswerTextTest, ATokenThatDoesNotExistIsRefused) {
  AnswerText text(tokenizer_.get());
  EXPECT_EQ(text.Add(257).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(text.Add(-1).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace lancet
