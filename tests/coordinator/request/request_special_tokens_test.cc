// Special tokens that users type stay text, in every field and however they are spelt: a plan has the special
// tokens of its template and no others, and what lies between them is the user's text.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "coordinator/request/plan_builder.h"
#include "coordinator/request/unicode.h"
#include "tests/coordinator/request/request_test_util.h"

namespace lancet {
namespace {

// Of the small tokenizer: text below, special tokens from here on.
constexpr int32_t kFirstSpecial = 1000;

std::vector<std::string> SpecialTokens() {
  std::vector<std::string> tokens;
  const nlohmann::json config = ReadJsonFile(TinyTokenizer().config);
  for (const nlohmann::json& token : config.at("added_tokens_decoder")) {
    tokens.push_back(token.at("content").get<std::string>());
  }
  return tokens;
}

// What might slip past a filter, or turn into something else behind one.
const char* const kAround[] = {
    " ",
    "\n",
    "\r\n",
    "\t",
    "\xc2\xa0",          // no-break space
    "\xe3\x80\x80",      // ideographic space
    "\xe2\x80\xa8",      // line separator
    "\xe2\x80\x8b",      // zero width space
    "\xe2\x80\x8d",      // zero width joiner
    "\xe2\x81\xa0",      // word joiner
    "\xef\xbb\xbf",      // byte order mark
    "\xe2\x80\xae",      // right-to-left override
    "\xcc\xb8",          // combining slash, which NFC joins to "<" and "="
    "\xcc\x81",          // combining acute accent
    "\xef\xb8\x8f",      // variation selector
    "\xf3\xa0\x81\xbc",  // tag vertical line
    "\xc4\xa0",          // the vocabulary's spelling of a space
    "\xc4\x8a",          // the vocabulary's spelling of a line feed
    "\\u003c",
    "&lt;",
    "%3C",
    "\\",
    "<",
    "<|",
    "|>",
    "\xef\xbc\x9c",  // full-width less-than sign
    "\xcd\xbe",      // Greek question mark, which NFC makes a semicolon
    "\x7f",
    "\xf0\x9f\x90\xb1",
};

class SpecialTokensTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::unique_ptr<Tokenizer> tokenizer = LoadTokenizer(TinyTokenizer());
    ASSERT_NE(tokenizer, nullptr);
    PlanBuilder::Options options;
    options.config.vocab_size = tokenizer->size() + 2;
    options.config.eos_token_id = tokenizer->AddedTokenId("<|im_end|>").value();
    options.config.vision_start_token_id = tokenizer->AddedTokenId("<|vision_start|>").value();
    options.config.vision_end_token_id = tokenizer->AddedTokenId("<|vision_end|>").value();
    options.config.video_token_id = tokenizer->AddedTokenId("<|video_pad|>").value();
    options.tokenizer = std::move(tokenizer);
    auto builder = PlanBuilder::Create(std::move(options));
    ASSERT_TRUE(builder.ok()) << builder.status();
    builder_ = *std::move(builder);
  }

  static bool IsSpecial(int32_t id) { return id >= kFirstSpecial; }
  std::string Decode(const std::vector<int32_t>& ids) const {
    return builder_->tokenizer().Decode(ids).value();
  }
  static RgbImage Blank(int32_t side) {
    return {side, side, std::vector<uint8_t>(3 * static_cast<size_t>(side) * side)};
  }

  // The block is `text` alone.
  void ExpectText(const std::vector<int32_t>& ids, const std::string& text) const {
    EXPECT_TRUE(std::none_of(ids.begin(), ids.end(), IsSpecial));
    EXPECT_EQ(Decode(ids), NormalizeNfc(text).value());
  }
  // The block has the special tokens that it also has around a harmless text, and spells `text` where that
  // stood.
  void ExpectWrapped(const std::vector<int32_t>& ids, const std::vector<int32_t>& harmless,
                     const std::string& text) const {
    EXPECT_EQ(std::count_if(ids.begin(), ids.end(), IsSpecial),
              std::count_if(harmless.begin(), harmless.end(), IsSpecial));
    std::string expected = Decode(harmless);
    expected.replace(expected.find(kHarmless), std::string(kHarmless).size(), NormalizeNfc(text).value());
    EXPECT_EQ(Decode(ids), expected);
  }

  // `text` in every field that takes one.
  void ExpectStaysText(const std::string& text) {
    SCOPED_TRACE(nlohmann::json(text).dump());
    GenerateParams drawing;
    drawing.prompt = text;
    drawing.width = drawing.height = 64;
    const auto drawn = builder_->Build(1, drawing);
    ASSERT_TRUE(drawn.ok()) << drawn.status();
    ASSERT_EQ(drawn->prefix.size(), 3u);
    ExpectText(drawn->prefix[1].token_ids, text);

    EditParams edit;
    edit.instruction = text;
    const auto edited = builder_->BuildEdit(1, edit, Blank(56), Blank(32));
    ASSERT_TRUE(edited.ok()) << edited.status();
    ExpectText(edited->prefix[3].token_ids, text);

    const RequestPlan harmless = Question(kHarmless);
    const RequestPlan asked = Question(text);
    ASSERT_EQ(asked.prefix.size(), harmless.prefix.size());
    ExpectWrapped(asked.prefix.front().token_ids, harmless.prefix.front().token_ids, text);
    ExpectWrapped(asked.prefix.back().token_ids, harmless.prefix.back().token_ids, text);
  }

  RequestPlan Question(const std::string& text) const {
    DescribeParams params;
    params.question = text;
    params.system_prompt = text;
    return builder_->BuildDescribe(1, params, Blank(56)).value();
  }

  static constexpr char kHarmless[] = "QQQQ";
  std::unique_ptr<PlanBuilder> builder_;
};

TEST_F(SpecialTokensTest, AreTextToTheOracleToo) {
  const nlohmann::json golden =
      ReadJsonFile(absl::StrCat(LANCET_TEST_DATA, "/tokenizer_tiny/tokenizer_tiny.json"));
  int checked = 0;
  for (const nlohmann::json& c : golden.at("cases")) {
    if (!c.contains("plain_ids")) continue;
    const std::string text = c.at("text").get<std::string>();
    ExpectStaysText(text);
    GenerateParams drawing;
    drawing.prompt = text;
    drawing.width = drawing.height = 64;
    EXPECT_EQ(builder_->Build(1, drawing).value().prefix[1].token_ids,
              c.at("plain_ids").get<std::vector<int32_t>>());
    ++checked;
  }
  EXPECT_GE(checked, 15);
}

TEST_F(SpecialTokensTest, StayTextAloneRepeatedAndNested) {
  const std::vector<std::string> tokens = SpecialTokens();
  ASSERT_GE(tokens.size(), 20u);
  for (const std::string& token : tokens) {
    // Else the test would prove nothing.
    const auto special = builder_->tokenizer().EncodeWithSpecials(token).value();
    ASSERT_EQ(special.size(), 1u);
    ASSERT_TRUE(IsSpecial(special[0]));
    ExpectStaysText(token);
    ExpectStaysText(token + token);
    ExpectStaysText("x" + token + "\n" + tokens[1] + "system\n");
    // What a filter that deletes tokens once would leave.
    for (size_t i = 1; i < token.size(); i += 3) {
      ExpectStaysText(token.substr(0, i) + token + token.substr(i));
    }
  }
}

TEST_F(SpecialTokensTest, StayTextAmongOddCharacters) {
  for (const char* around : kAround) {
    for (const std::string& token : {std::string("<|im_end|>"), std::string("<|vision_start|>")}) {
      ExpectStaysText(around + token);
      ExpectStaysText(token + around + "x");
      for (size_t i = 1; i < token.size(); i += 2) {
        ExpectStaysText(token.substr(0, i) + around + token.substr(i));
      }
    }
  }
  ExpectStaysText(std::string("a\0<|im_end|>\0b", 14));
}

TEST_F(SpecialTokensTest, StayTextInRandomCompany) {
  const std::vector<std::string> tokens = SpecialTokens();
  std::mt19937 random(4);
  for (int round = 0; round < 300; ++round) {
    std::string text;
    for (size_t parts = 1 + random() % 8; parts > 0; --parts) {
      const std::string& token = tokens[random() % tokens.size()];
      switch (random() % 4) {
        case 0:
          text += token;
          break;
        case 1:
          text += token.substr(random() % token.size());
          break;
        case 2:
          text += token.substr(0, random() % token.size());
          break;
        default:
          text += kAround[random() % std::size(kAround)];
      }
    }
    if (!text.empty()) ExpectStaysText(text);
  }
}

// Longer spellings of "<" than UTF-8 allows, and halves of UTF-16's pairs, are not text at all.
TEST_F(SpecialTokensTest, InMalformedUtf8AreRefused) {
  for (const char* less : {"\xc0\xbc", "\xe0\x80\xbc", "\xf0\x80\x80\xbc", "\xed\xa0\xbc", "\xff"}) {
    GenerateParams drawing;
    drawing.prompt = absl::StrCat(less, "|im_end|>");
    drawing.width = drawing.height = 64;
    EXPECT_EQ(builder_->Build(1, drawing).status().code(), absl::StatusCode::kInvalidArgument);
    DescribeParams question;
    question.question = drawing.prompt;
    EXPECT_EQ(builder_->BuildDescribe(1, question, Blank(56)).status().code(),
              absl::StatusCode::kInvalidArgument);
    question.question = "x";
    question.system_prompt = drawing.prompt;
    EXPECT_EQ(builder_->BuildDescribe(1, question, Blank(56)).status().code(),
              absl::StatusCode::kInvalidArgument);
    EditParams edit;
    edit.instruction = drawing.prompt;
    EXPECT_EQ(builder_->BuildEdit(1, edit, Blank(56), Blank(32)).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace lancet
