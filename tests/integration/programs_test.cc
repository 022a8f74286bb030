// The programs as people and scripts use them: the command line client, wrong flags.
#include <signal.h>

#include <filesystem>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/await_condition.h"
#include "tests/integration/cluster.h"
#include "tests/integration/requests.h"

namespace lancet {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;

class ProgramsTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    auto cluster = Cluster::Start(NanoCluster(1));
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    shared_cluster = cluster->release();
  }
  static void TearDownTestSuite() {
    delete shared_cluster;
    shared_cluster = nullptr;
  }
  void SetUp() override { ASSERT_NE(shared_cluster, nullptr); }

  struct Outcome {
    int exit_code = -1;
    std::string log;  // stdout and stderr
  };

  static std::string Path(const std::string& name) { return shared_cluster->dir() + "/" + name; }
  static std::unique_ptr<Process> Start(const std::vector<std::string>& arguments) {
    const std::string log = Path("program.log");
    std::filesystem::remove(log);
    auto process = Process::Start(arguments, log);
    EXPECT_TRUE(process.ok()) << process.status();
    return process.ok() ? *std::move(process) : nullptr;
  }
  static Outcome Finish(Process* process) {
    if (process == nullptr) return {};
    const auto end = process->AwaitEnd(kClusterDeadline);
    EXPECT_TRUE(end.has_value() && end->exit_code.has_value()) << process->Log();
    return {end.has_value() ? end->exit_code.value_or(-1) : -1, process->Log()};
  }
  static Outcome RunProgram(const std::vector<std::string>& arguments) {
    return Finish(Start(arguments).get());
  }

  static Cluster* shared_cluster;
};

Cluster* ProgramsTest::shared_cluster = nullptr;

constexpr char kCli[] = LANCET_BIN_DIR "/lancet";
constexpr char kWorker[] = LANCET_BIN_DIR "/lancet-worker";
constexpr char kNanoCard[] = "--lancet_json=" LANCET_SOURCE_DIR "/tests/integration/nano.lancet.json";
constexpr char kDemoModel[] = "--model_dir=" LANCET_DEMO_MODEL;

TEST_F(ProgramsTest, CliWritesPreviewsAndResult) {
  const Outcome outcome =
      RunProgram({kCli, "generate", "a cat", "--server", shared_cluster->address(), "--seed=7", "--steps=10",
                  "--size=64x64", "--previews=5", "--out", Path("cli")});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.log;
  EXPECT_THAT(outcome.log, HasSubstr("seed: 7\n"));
  EXPECT_THAT(outcome.log, EndsWith("result: " + Path("cli/result.png") + "\n"));
  EXPECT_TRUE(ReadPng(Path("cli/result.png")).ok());
  // Steps take milliseconds here, so the first preview may have been replaced by the second before it was
  // sent.
  EXPECT_TRUE(std::filesystem::exists(Path("cli/preview_05.jpg")) ||
              std::filesystem::exists(Path("cli/preview_10.jpg")))
      << outcome.log;
}

TEST_F(ProgramsTest, CliExitCodes) {
  EXPECT_EQ(RunProgram({kCli, "generate", "a cat", "--bogus"}).exit_code, 2);
  EXPECT_EQ(RunProgram({kCli, "generate", "a cat", "--steps=0", "--server", shared_cluster->address(),
                        "--out", Path("x")})
                .exit_code,
            2);
  EXPECT_EQ(RunProgram({kCli, "generate", "a cat", "--server=127.0.0.1:1", "--out", Path("x")}).exit_code, 3);
  EXPECT_EQ(RunProgram({kCli, "generate", "a cat", "--steps=10000", "--size=64x64", "--timeout=500ms",
                        "--server", shared_cluster->address(), "--out", Path("x")})
                .exit_code,
            4);
}

TEST_F(ProgramsTest, InterruptCancelsTheRequest) {
  const auto process = Start({kCli, "generate", "a cat", "--steps=10000", "--size=64x64", "--json",
                              "--server", shared_cluster->address(), "--out", Path("x")});
  ASSERT_NE(process, nullptr);
  ASSERT_TRUE(AwaitCondition([&] { return process->Log().find("\"progress\"") != std::string::npos; },
                             kClusterDeadline));
  process->Signal(SIGINT);
  EXPECT_EQ(Finish(process.get()).exit_code, 5);
  // The server forgets it: nothing stays active.
  EXPECT_TRUE(AwaitCondition(
      [&] {
        const auto info = shared_cluster->client().GetModelInfo(kClusterDeadline);
        return info.ok() && info->groups.size() == 1 && info->groups[0].active_requests == 0;
      },
      kClusterDeadline));
}

TEST_F(ProgramsTest, CliInfo) {
  const Outcome outcome = RunProgram({kCli, "info", "--server", shared_cluster->address()});
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_THAT(outcome.log, HasSubstr("group default: serving, 1 ranks"));
}

TEST_F(ProgramsTest, CliEditsAndDescribes) {
  const std::string source = LANCET_TEST_DATA "/nano/golden/edit_256res.source.png";
  const std::string server = "--server=" + shared_cluster->address();
  const Outcome edited = RunProgram({kCli, "edit", source, "remove the hat", server, "--seed=7", "--steps=2",
                                     "--size=128x128", "--out", Path("edited")});
  EXPECT_EQ(edited.exit_code, 0) << edited.log;
  EXPECT_THAT(edited.log, HasSubstr("size: 144x112\n"));
  EXPECT_TRUE(ReadPng(Path("edited/result.png")).ok());
  const Outcome described = RunProgram({kCli, "describe", source, server, "--max_tokens=5", "--json"});
  EXPECT_EQ(described.exit_code, 0) << described.log;
  EXPECT_THAT(described.log, HasSubstr("\"event\":\"result\""));
  const Outcome missing = RunProgram({kCli, "describe", Path("no.png"), server});
  EXPECT_EQ(missing.exit_code, 2);
  EXPECT_THAT(missing.log, HasSubstr("cannot read"));
}

TEST_F(ProgramsTest, WorkerRejectsBadFlags) {
  const std::string model = "--model_dir=" LANCET_TEST_DATA "/nano";
  const std::pair<std::vector<std::string>, std::string> table[] = {
      {{"--world_size=0"}, "--world_size is 0"},
      {{"--world_size=2", "--rank=2"}, "--rank is 2; expected 0 to 1"},
      {{"--threads=-1"}, "--threads is -1"},
      {{"--max_pixels=1"}, "--max_pixels is 1"},
      {{"--cpus=3-1"}, "3-1"},
      {{"--group="}, "--group is empty"},
      {{"stray"}, "stray"},
  };
  for (const auto& [flags, reason] : table) {
    std::vector<std::string> arguments = {kWorker, model};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    const Outcome outcome = RunProgram(arguments);
    EXPECT_EQ(outcome.exit_code, 2) << flags[0];
    EXPECT_THAT(outcome.log, HasSubstr(reason));
  }
}

TEST_F(ProgramsTest, WorkerOfAnotherModelIsRefusedForGood) {
  // The demo model's weights, on a server of nano.
  const Outcome outcome =
      RunProgram({kWorker, kDemoModel, "--coordinator=" + shared_cluster->worker_address(), "--group=other",
                  "--threads=1", kNanoCard});
  EXPECT_EQ(outcome.exit_code, 1) << outcome.log;
  EXPECT_THAT(outcome.log, HasSubstr("fingerprint"));
}

}  // namespace
}  // namespace lancet
