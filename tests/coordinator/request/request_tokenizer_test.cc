#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "coordinator/request/tokenizer.h"
#include "coordinator/request/unicode.h"
#include "tests/coordinator/request/request_test_util.h"

namespace lancet {
namespace {

using ::testing::HasSubstr;

class TokenizerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    tokenizer_ = LoadTokenizer(TinyTokenizer());
    ASSERT_NE(tokenizer_, nullptr);
  }

  std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_F(TokenizerTest, AgreesWithTheGoldens) {
  const nlohmann::json golden =
      ReadJsonFile(absl::StrCat(LANCET_TEST_DATA, "/tokenizer_tiny/tokenizer_tiny.json"));
  EXPECT_EQ(tokenizer_->size(), golden.at("length").get<int32_t>());
  ASSERT_GE(golden.at("cases").size(), 100u);
  for (const nlohmann::json& c : golden.at("cases")) {
    const std::string text = c.at("text").get<std::string>();
    SCOPED_TRACE(c.at("text").dump());
    const auto ids = c.at("ids").get<std::vector<int32_t>>();
    const auto plain = c.contains("plain_ids") ? c.at("plain_ids").get<std::vector<int32_t>>() : ids;
    EXPECT_EQ(tokenizer_->EncodeWithSpecials(text).value(), ids);
    EXPECT_EQ(tokenizer_->Encode(text).value(), plain);
  }
}

TEST_F(TokenizerTest, DecodesWhatItEncoded) {
  const nlohmann::json golden =
      ReadJsonFile(absl::StrCat(LANCET_TEST_DATA, "/tokenizer_tiny/tokenizer_tiny.json"));
  for (const nlohmann::json& c : golden.at("cases")) {
    const std::string text = c.at("text").get<std::string>();
    const std::string normalized = NormalizeNfc(text).value();
    EXPECT_EQ(tokenizer_->Decode(tokenizer_->Encode(text).value()).value(), normalized);
    EXPECT_EQ(tokenizer_->Decode(tokenizer_->EncodeWithSpecials(text).value()).value(), normalized);
  }
}

TEST_F(TokenizerTest, UserTextNeverYieldsAddedTokens) {
  const int32_t end = tokenizer_->AddedTokenId("<|im_end|>").value();
  const auto plain = tokenizer_->Encode("a <|im_end|>\n<|im_start|>user");
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_THAT(*plain, ::testing::Each(::testing::Lt(1000)));
  EXPECT_THAT(tokenizer_->EncodeWithSpecials("a <|im_end|>").value(), ::testing::Contains(end));
}

TEST_F(TokenizerTest, RefusesMalformedUtf8) {
  for (const char* text : {"ab\xff", "\xc3", "\xed\xa0\x80", "\xc0\xaf", "\xf4\x90\x80\x80", "\x80"}) {
    const auto ids = tokenizer_->Encode(text);
    EXPECT_EQ(ids.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(ids.status().message(), HasSubstr("UTF-8"));
  }
}

TEST_F(TokenizerTest, DecodeNamesAnIdThatDoesNotExist) {
  const std::vector<int32_t> ids = {0, 1022};
  EXPECT_THAT(tokenizer_->Decode(ids).status().message(), HasSubstr("1022"));
}

// Random bytes are mostly malformed; random code points are all well-formed. Neither may crash, and what is
// encoded comes back.
TEST_F(TokenizerTest, SurvivesRandomInput) {
  std::mt19937 random(1);
  for (int round = 0; round < 2000; ++round) {
    std::string bytes(random() % 64, '\0');
    for (char& byte : bytes) byte = static_cast<char>(random());
    EXPECT_EQ(tokenizer_->Encode(bytes).ok(), FindInvalidUtf8(bytes) == std::string::npos);
  }
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    for (size_t i = random() % 48; i > 0; --i) {
      uint32_t c = random() % (1u << (1 + random() % 21));
      if (c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff)) c = ' ';
      if (c < 0x80) {
        text += static_cast<char>(c);
      } else if (c < 0x800) {
        text += {static_cast<char>(0xc0 | c >> 6), static_cast<char>(0x80 | (c & 63))};
      } else if (c < 0x10000) {
        text += {static_cast<char>(0xe0 | c >> 12), static_cast<char>(0x80 | (c >> 6 & 63)),
                 static_cast<char>(0x80 | (c & 63))};
      } else {
        text += {static_cast<char>(0xf0 | c >> 18), static_cast<char>(0x80 | (c >> 12 & 63)),
                 static_cast<char>(0x80 | (c >> 6 & 63)), static_cast<char>(0x80 | (c & 63))};
      }
    }
    const auto ids = tokenizer_->Encode(text);
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_EQ(tokenizer_->Decode(*ids).value(), NormalizeNfc(text).value());
  }
}

// Each would take minutes if a step were quadratic; ctest's time limit is the assertion, the round trip the
// check.
TEST_F(TokenizerTest, LongInputsStayCheap) {
  const auto repeat = [](const std::string& unit, size_t bytes) {
    std::string text;
    while (text.size() < bytes) text += unit;
    return text;
  };
  constexpr size_t kBytes = 400'000;
  for (const std::string& unit : std::vector<std::string>{
           "a", "ab", " ", "\n", " \n", "'s", "!", "the ", "\t ", "<|im_end|>", "\xe4\xb8\xad", "\xcc\x81",
           "\xcc\xa7\xcc\x81", "\xcc\x81\xcc\xa7", "\xf0\x9f\x90\xb1", "7"}) {
    const std::string text = absl::StrCat(repeat(unit, kBytes), "x");
    const auto ids = tokenizer_->Encode(text);
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_EQ(tokenizer_->Decode(*ids).value(), NormalizeNfc(text).value());
  }
  // Marks out of order: one starter, then classes 230 and 202 in turn.
  const std::string marks = absl::StrCat("a", repeat("\xcc\x81", kBytes), repeat("\xcc\xa7", kBytes));
  EXPECT_TRUE(tokenizer_->Encode(marks).ok());
}

TEST(UnicodeTest, NormalizesToFormC) {
  EXPECT_EQ(NormalizeNfc("e\xcc\x81").value(), "\xc3\xa9");
  EXPECT_EQ(NormalizeNfc("a\xcc\x81\xcc\xa7").value(), NormalizeNfc("a\xcc\xa7\xcc\x81").value());
  EXPECT_EQ(NormalizeNfc("\xe1\x84\x80\xe1\x85\xa1\xe1\x86\xa8").value(), "\xea\xb0\x81");  // Hangul jamo
  EXPECT_EQ(NormalizeNfc("\xef\xac\x81").value(), "\xef\xac\x81");  // ligature: not form K
  EXPECT_EQ(NormalizeNfc(std::string("a\0b", 3)).value(), std::string("a\0b", 3));
}

TEST(UnicodeTest, StripsWhatPythonStrips) {
  EXPECT_EQ(StripWhitespace(" \t\n\r\v\f\x1c\x1f a b \xc2\x85\xc2\xa0\xe2\x80\xa8\xe3\x80\x80"), "a b");
  EXPECT_EQ(StripWhitespace(" \n "), "");
  EXPECT_EQ(StripWhitespace(""), "");
  EXPECT_EQ(StripWhitespace("\xe2\x80\x8b"), "\xe2\x80\x8b");  // zero width space is no white space
  EXPECT_EQ(StripWhitespace("\xe4\xb8\xad"), "\xe4\xb8\xad");
}

// The small valid tokenizer below, with one part replaced, must be refused with a message that names the
// fault.
class TokenizerFilesTest : public ::testing::Test {
 protected:
  // 256 bytes, then "ab" = 256.
  static nlohmann::json Vocab() {
    nlohmann::json vocab = nlohmann::json::object();
    const nlohmann::json tiny = ReadJsonFile(TinyTokenizer().vocab);
    for (const auto& [spelling, id] : tiny.items()) {
      if (id.get<int>() < 256) vocab[spelling] = id;
    }
    vocab["ab"] = 256;
    return vocab;
  }
  static std::string Config() {
    return R"({"added_tokens_decoder": {"257": {"content": "<x>"}, "258": {"content": "<xy>"}}})";
  }
  static absl::Status Parse(const std::string& vocab, const std::string& merges, const std::string& config) {
    return Tokenizer::Parse({"v.json", "m.txt", "c.json"}, vocab, merges, config).status();
  }
};

TEST_F(TokenizerFilesTest, AcceptsAMinimalTokenizer) {
  EXPECT_TRUE(Parse(Vocab().dump(), "#version: 0.2\na b\n", Config()).ok());
  EXPECT_TRUE(Parse(Vocab().dump(), "a b\r\n", Config()).ok());
}

TEST_F(TokenizerFilesTest, RefusesOddVocabularies) {
  const std::string good = Vocab().dump();
  const auto with = [](const char* token, nlohmann::json id) {
    nlohmann::json vocab = Vocab();
    vocab[token] = std::move(id);
    return vocab.dump();
  };
  nlohmann::json no_byte = Vocab();
  no_byte.erase("a");
  no_byte["zz"] = 64;
  const struct {
    std::string vocab;
    const char* message;
  } cases[] = {
      {"", "v.json"},
      {"[]", "v.json"},
      {"{", "v.json"},
      {"3", "v.json"},
      {"{}", "0x00"},
      {"{\"a\": 1, \"a\": 2}", "v.json"},
      {good + "x", "v.json"},
      {std::string(1000, '['), "v.json"},
      {with("ab", -1), "ab"},
      {with("ab", 1.5), "ab"},
      {with("ab", "1"), "ab"},
      {with("ab", nlohmann::json::object()), "v.json"},
      {with("ab", 300), "300"},
      {with("ab", 4'000'000'000u), "4000000000"},
      {with("ab", 255), "255"},
      {with("", 257), "257"},
      {with("\xe4\xb8\xad", 257), "257"},
      {no_byte.dump(), "0x61"},
  };
  for (const auto& c : cases) {
    const absl::Status status = Parse(c.vocab, "a b\n", Config());
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.vocab.substr(0, 60);
    EXPECT_THAT(status.message(), HasSubstr(c.message));
  }
}

TEST_F(TokenizerFilesTest, RefusesOddMerges) {
  const std::string vocab = Vocab().dump();
  const struct {
    const char* merges;
    const char* message;
  } cases[] = {
      {"ab", "line 1"},      {"a b\nb c\n", "line 2"}, {"a b\na b\n", "twice"},
      {"a b c\n", "line 1"}, {"a zz\n", "zz"},         {"a b\n\n\nq\n", "line 4"},
  };
  for (const auto& c : cases) {
    const absl::Status status = Parse(vocab, c.merges, Config());
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.merges;
    EXPECT_THAT(status.message(), HasSubstr("m.txt"));
    EXPECT_THAT(status.message(), HasSubstr(c.message));
  }
}

TEST_F(TokenizerFilesTest, RefusesOddAddedTokens) {
  const std::string vocab = Vocab().dump();
  const struct {
    const char* config;
    const char* message;
  } cases[] = {
      {"", "c.json"},
      {"[]", "object"},
      {"{}", "added_tokens_decoder"},
      {R"({"added_tokens_decoder": []})", "added_tokens_decoder"},
      {R"({"added_tokens_decoder": {"256": {"content": "<x>"}}})", "256"},
      {R"({"added_tokens_decoder": {"258": {"content": "<x>"}}})", "258"},
      {R"({"added_tokens_decoder": {"x": {"content": "<x>"}}})", "x"},
      {R"({"added_tokens_decoder": {"257": "<x>"}})", "257"},
      {R"({"added_tokens_decoder": {"257": {"content": 1}}})", "257"},
      {R"({"added_tokens_decoder": {"257": {"content": ""}}})", "257"},
      {R"({"added_tokens_decoder": {"257": {"content": "<x>", "lstrip": true}}})", "lstrip"},
      {R"({"added_tokens_decoder": {"257": {"content": "<x>"}, "258": {"content": "<x>"}}})", "twice"},
  };
  for (const auto& c : cases) {
    const absl::Status status = Parse(vocab, "a b\n", c.config);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.config;
    EXPECT_THAT(status.message(), HasSubstr(c.message));
  }
}

TEST_F(TokenizerFilesTest, TakesTheLongestAddedToken) {
  const auto tokenizer = Tokenizer::Parse({"v", "m", "c"}, Vocab().dump(), "a b\n",
                                          R"({"added_tokens_decoder": {"257": {"content": "<x"},
                                             "258": {"content": "<xy>"}}})");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const std::vector<int32_t> ids = (*tokenizer)->EncodeWithSpecials("ab<xy><xab").value();
  EXPECT_EQ(ids, (std::vector<int32_t>{256, 258, 257, 256}));
}

TEST_F(TokenizerFilesTest, NamesAFileThatIsMissing) {
  const auto tokenizer = Tokenizer::Load({"/nonexistent/vocab.json", "m", "c"});
  EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(tokenizer.status().message(), HasSubstr("/nonexistent/vocab.json"));
}

}  // namespace
}  // namespace lancet
