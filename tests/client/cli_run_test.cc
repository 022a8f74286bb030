// The whole program but its main(), against a server in this process.
#include <filesystem>
#include <fstream>
#include <sstream>

#include "client/cli.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/client/fake_image_service.h"

namespace lancet {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;

struct Outcome {
  ExitCode code;
  std::string out;
  std::string err;
};

Outcome RunLancet(std::vector<std::string> arguments) {
  std::ostringstream out;
  std::ostringstream err;
  const CliEnvironment environment{
      .out = out, .err = err, .err_is_terminal = false, .columns = 80, .detect_inline_protocol = [] {
        return absl::UnavailableError("no pictures here");
      }};
  Cancellation cancellation;
  const ExitCode code = RunCli(arguments, environment, &cancellation);
  return {code, out.str(), err.str()};
}

TEST(CliRunTest, GenerateWritesIntoAFolderThatItMakes) {
  FakeImageService server([](auto*, const auto&, auto* writer) {
    SendWholeRequest(writer, 5);
    return grpc::Status::OK;
  });
  const auto dir = std::filesystem::path(testing::TempDir()) / "lancet_cli_run" / "deep";
  std::filesystem::remove_all(dir.parent_path());
  const Outcome outcome = RunLancet(
      {"generate", "x", "--server", server.address(), "--out", dir.string(), "--show", "--seed", "5"});
  EXPECT_EQ(outcome.code, ExitCode::kOk);
  EXPECT_THAT(outcome.out, EndsWith("result: " + (dir / "result.png").string() + "\n"));
  EXPECT_THAT(outcome.err, HasSubstr("--show: no pictures here"));
  EXPECT_TRUE(std::filesystem::exists(dir / "preview_01.jpg"));
  std::filesystem::remove_all(dir.parent_path());
}

TEST(CliRunTest, ExitCodesFollowTheStatus) {
  const std::pair<grpc::StatusCode, ExitCode> table[] = {
      {grpc::StatusCode::INVALID_ARGUMENT, ExitCode::kUsage},
      {grpc::StatusCode::DEADLINE_EXCEEDED, ExitCode::kDeadline},
      {grpc::StatusCode::CANCELLED, ExitCode::kCancelled},
      {grpc::StatusCode::RESOURCE_EXHAUSTED, ExitCode::kResourceExhausted},
      {grpc::StatusCode::UNAVAILABLE, ExitCode::kUnavailable},
      {grpc::StatusCode::INTERNAL, ExitCode::kOther},
  };
  for (const auto& [status, code] : table) {
    FakeImageService server(
        [status = status](auto*, const auto&, auto*) { return grpc::Status(status, "the reason"); });
    const Outcome outcome =
        RunLancet({"generate", "x", "--server", server.address(), "--out", testing::TempDir()});
    EXPECT_EQ(outcome.code, code) << status;
    EXPECT_THAT(outcome.err, HasSubstr("the reason"));
    EXPECT_EQ(outcome.out, "");
  }
}

// A file of a few bytes, as the fake service takes any.
std::string SmallFile() {
  const auto path = std::filesystem::path(testing::TempDir()) / "lancet_cli_input";
  std::ofstream(path) << "bytes";
  return path.string();
}

TEST(CliRunTest, DescribeStreamsTheAnswerToStdoutAndTheRestToStderr) {
  FakeImageService server([](auto*, const auto&, auto*) { return grpc::Status::OK; });
  const Outcome outcome =
      RunLancet({"describe", SmallFile(), "what?", "--max_tokens=3", "--server", server.address()});
  EXPECT_EQ(outcome.code, ExitCode::kOk);
  EXPECT_EQ(outcome.out, "You ask: what?\n");
  EXPECT_THAT(outcome.err, HasSubstr("3 tokens"));
  EXPECT_THAT(outcome.err, HasSubstr("--max_tokens allows more"));
  const Outcome json = RunLancet({"describe", SmallFile(), "what?", "--json", "--server", server.address()});
  EXPECT_THAT(json.out, HasSubstr("\"text\":\"You ask: what?\",\"finish_reason\":\"length\""));
  EXPECT_EQ(RunLancet({"describe", "/nowhere/x.png", "--server", server.address()}).code, ExitCode::kUsage);
}

TEST(CliRunTest, EditSendsThePictureAndWritesTheResult) {
  FakeImageService server([](auto*, const auto&, auto*) { return grpc::Status::OK; });
  const auto dir = std::filesystem::path(testing::TempDir()) / "lancet_cli_edit";
  const Outcome outcome = RunLancet({"edit", SmallFile(), "bluer", "--resolution=512", "--out", dir.string(),
                                     "--server", server.address()});
  EXPECT_EQ(outcome.code, ExitCode::kOk) << outcome.err;
  std::ifstream file(dir / "result.png");
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), "bluer|bytes|2");
  std::filesystem::remove_all(dir);
}

TEST(CliRunTest, UsageErrorsDoNotDial) {
  const Outcome outcome = RunLancet({"generate", "x", "--sed", "1", "--server", "127.0.0.1:1"});
  EXPECT_EQ(outcome.code, ExitCode::kUsage);
  EXPECT_THAT(outcome.err, HasSubstr("did you mean --seed?"));
}

TEST(CliRunTest, InfoPrintsModelAndGroups) {
  FakeImageService server([](auto*, const auto&, auto*) { return grpc::Status::OK; });
  const Outcome outcome = RunLancet({"info", "--server", server.address()});
  EXPECT_EQ(outcome.code, ExitCode::kOk);
  EXPECT_THAT(outcome.out, HasSubstr("model: fake\n"));
  EXPECT_THAT(outcome.out, HasSubstr("group default: serving, 2 ranks"));
  EXPECT_THAT(RunLancet({"info", "--json", "--server", server.address()}).out,
              HasSubstr("\"default_size\":[256,128]"));
}

TEST(CliRunTest, HelpAndVersion) {
  EXPECT_THAT(RunLancet({"--help"}).out, HasSubstr("First steps"));
  EXPECT_THAT(RunLancet({"version"}).out, testing::StartsWith("lancet "));
  EXPECT_EQ(RunLancet({"--version"}).code, ExitCode::kOk);
}

}  // namespace
}  // namespace lancet
