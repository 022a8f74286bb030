#include "client/generation_output.h"

#include <filesystem>
#include <fstream>
#include <sstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace lancet {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;

std::string Contents(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

PictureFile File(PictureFormat format, const std::string& data) {
  return {.format = format, .width = 32, .height = 16, .data = data};
}

class GenerationOutputTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    dir_ = std::filesystem::path(testing::TempDir()) / ("lancet_output_" + std::string(info->name()));
    std::filesystem::remove_all(dir_);
    std::filesystem::create_directories(dir_);
    options_.out_dir = dir_.string();
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  // A short request: two steps, a preview after the first.
  absl::Status Play() {
    GenerationOutput output(options_, out_, err_);
    output.OnQueued({.position = 2, .estimated_wait = absl::Seconds(3)});
    output.OnStarted(
        {.request_id = "r", .seed = 7, .width = 32, .height = 16, .num_steps = 30, .warnings = {"odd size"}});
    output.OnProgress(
        {.step = 5, .total_steps = 30, .elapsed = absl::Seconds(1), .estimated_remaining = absl::Seconds(5)});
    output.OnPreview({.step = 5, .image = File(PictureFormat::kJpeg, "preview")});
    output.OnProgress(
        {.step = 30, .total_steps = 30, .elapsed = absl::Seconds(6), .estimated_remaining = {}});
    GenerationResult result;
    result.image = File(PictureFormat::kPng, "result");
    result.seed = 7;
    result.timings.total = absl::Seconds(6.5);
    return output.Finish(result);
  }

  std::filesystem::path dir_;
  OutputOptions options_;
  std::ostringstream out_, err_;
};

TEST_F(GenerationOutputTest, WritesFilesAndEndsWithTheResult) {
  ASSERT_TRUE(Play().ok());
  EXPECT_EQ(Contents(dir_ / "preview_05.jpg"), "preview");
  EXPECT_EQ(Contents(dir_ / "result.png"), "result");
  EXPECT_THAT(out_.str(), HasSubstr("seed: 7\n"));
  EXPECT_THAT(out_.str(), HasSubstr("total 6.50 s\n"));
  EXPECT_THAT(out_.str(), EndsWith("\nresult: " + (dir_ / "result.png").string() + "\n"));
  EXPECT_THAT(err_.str(), HasSubstr("queued, 2 ahead, about 3.00 s to wait\n"));
  EXPECT_THAT(err_.str(), HasSubstr("warning: odd size\n"));
  EXPECT_THAT(err_.str(), HasSubstr("step 30 of 30"));
  EXPECT_EQ(err_.str().find('\r'), std::string::npos);
}

TEST_F(GenerationOutputTest, QuietSaysNothingOnStderr) {
  options_.quiet = true;
  ASSERT_TRUE(Play().ok());
  EXPECT_EQ(err_.str(), "");
}

TEST_F(GenerationOutputTest, BarRedrawsOneLine) {
  options_.bar = true;
  ASSERT_TRUE(Play().ok());
  EXPECT_THAT(err_.str(), HasSubstr("\r["));
  EXPECT_THAT(err_.str(), HasSubstr("30/30"));
  EXPECT_THAT(err_.str(), EndsWith("\n"));
}

TEST_F(GenerationOutputTest, JsonIsOneObjectALineAndNothingElse) {
  options_.json = true;
  ASSERT_TRUE(Play().ok());
  std::istringstream lines(out_.str());
  std::vector<std::string> events;
  nlohmann::json last;
  for (std::string line; std::getline(lines, line);) {
    last = nlohmann::json::parse(line);
    events.push_back(last["event"]);
  }
  EXPECT_THAT(events, testing::ElementsAre("queued", "started", "progress", "preview", "progress", "result"));
  EXPECT_EQ(last["path"], (dir_ / "result.png").string());
  EXPECT_EQ(last["timings_seconds"]["total"], 6.5);
}

TEST_F(GenerationOutputTest, ShowsWhatTheTerminalCanDraw) {
  options_.show = InlineProtocol::kKitty;
  ASSERT_TRUE(Play().ok());
  EXPECT_THAT(err_.str(), HasSubstr("(not shown: this terminal draws PNG only)"));  // the JPEG preview
  EXPECT_THAT(err_.str(), HasSubstr("\x1b_Ga=T"));                                  // the PNG result
}

TEST_F(GenerationOutputTest, NamesTheFileItCannotWrite) {
  options_.out_dir = (dir_ / "missing").string();
  const absl::Status status = Play();
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr("result.png"));
}

}  // namespace
}  // namespace lancet
