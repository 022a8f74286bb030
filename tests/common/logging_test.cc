#include "common/logging.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace lancet {
namespace {

const std::vector<LogField> kFields = {{"rank", 3},
                                       {"seed", uint64_t{18446744073709551615u}},
                                       {"reason", "two \"words\"\nand a line"},
                                       {"empty", ""},
                                       SecondsField("took_s", 1.23456)};

TEST(FormatLogLineTest, TextHasOneLineThatCanBeTakenApart) {
  EXPECT_EQ(
      FormatLogLine(LogFormat::kText, "T", LogLevel::kWarning, "rank lost", kFields),
      "T W rank lost rank=3 seed=18446744073709551615 reason=\"two \\\"words\\\" and a line\" empty=\"\" "
      "took_s=1.235\n");
}

TEST(FormatLogLineTest, JsonIsOneObjectALine) {
  const std::string line = FormatLogLine(LogFormat::kJson, "T", LogLevel::kError, "rank lost", kFields);
  EXPECT_EQ(line.find('\n'), line.size() - 1);
  const nlohmann::json json = nlohmann::json::parse(line);
  EXPECT_EQ(json["time"], "T");
  EXPECT_EQ(json["level"], "error");
  EXPECT_EQ(json["message"], "rank lost");
  EXPECT_EQ(json["rank"], 3);
  // More digits than a double has.
  EXPECT_EQ(json["seed"], "18446744073709551615");
  EXPECT_EQ(json["reason"], "two \"words\"\nand a line");
  EXPECT_EQ(json["empty"], "");
  EXPECT_EQ(json["took_s"], 1.235);
}

TEST(FormatLogLineTest, JsonReplacesWhatIsNotUtf8) {
  const std::string line =
      FormatLogLine(LogFormat::kJson, "T", LogLevel::kInfo, "x", {{"bytes", "a\xff\x01"}});
  const nlohmann::json json = nlohmann::json::parse(line);
  EXPECT_EQ(json["bytes"], "a\xEF\xBF\xBD\x01");
}

TEST(ParseLogFormatTest, NamesWhatItTakes) {
  EXPECT_EQ(*ParseLogFormat("json"), LogFormat::kJson);
  EXPECT_EQ(*ParseLogFormat("text"), LogFormat::kText);
  EXPECT_THAT(std::string(ParseLogFormat("xml").status().message()), ::testing::HasSubstr("text or json"));
}

}  // namespace
}  // namespace lancet
