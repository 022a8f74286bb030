// Real processes with certificates, tokens and a shared secret: who belongs comes in, nobody else does.
#include <grpcpp/grpcpp.h>

#include <filesystem>
#include <sstream>

#include "client/status_client.h"
#include "common/digest.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/await_condition.h"
#include "tests/integration/cluster.h"
#include "tests/integration/requests.h"
#include "tests/testing/certificates.h"

namespace lancet {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kCoordinator[] = LANCET_BIN_DIR "/lancet-coordinator";
constexpr char kCli[] = LANCET_BIN_DIR "/lancet";
constexpr char kWorker[] = LANCET_BIN_DIR "/lancet-worker";
constexpr char kNano[] = "--model_dir=" LANCET_SOURCE_DIR "/tests/data/nano";
constexpr char kNanoCard[] = "--lancet_json=" LANCET_SOURCE_DIR "/tests/integration/nano.lancet.json";

std::string TokenLine(const std::string& name, const std::string& token, const std::string& limits) {
  return name + " sha256:" + ToHex(Sha256(token)) + " " + limits + "\n";
}

class AccessTest : public testing::Test {
 protected:
  static std::string File(const std::string& name, const std::string& text) {
    return WriteTestFile(testing::TempDir(), name, text);
  }
  static TlsFiles Pair(const std::string& name, const TestCertificate& pair, const std::string& ca) {
    return {File(name + ".pem", pair.certificate), File(name + ".key", pair.key), ca};
  }
  static std::string Run(const std::vector<std::string>& arguments, int& exit_code) {
    const std::string log = testing::TempDir() + "/access_program.log";
    std::filesystem::remove(log);
    auto process = Process::Start(arguments, log);
    if (!process.ok()) return process.status().ToString();
    const auto end = (*process)->AwaitEnd(kClusterDeadline);
    exit_code = end.has_value() ? end->exit_code.value_or(-1) : -1;
    return (*process)->Log();
  }
};

TEST_F(AccessTest, EncryptedWithCertificatesAndTokens) {
  const TestCertificate ca = MakeCertificate({.name = "ca", .is_ca = true});
  const std::string ca_file = File("access_ca.pem", ca.certificate);
  const TlsFiles server = Pair("access_server", MakeCertificate({}, &ca), ca_file);
  const TlsFiles rank = Pair("access_rank", MakeCertificate({.name = "rank"}, &ca), ca_file);
  const std::string tokens = File("access_tokens", TokenLine("alice", "a-token", "max_concurrent=4") +
                                                       TokenLine("ops", "o-token", "admin"));

  ClusterOptions options = NanoCluster(2);
  options.coordinator_flags.insert(
      options.coordinator_flags.end(),
      {"--tls_cert=" + server.cert, "--tls_key=" + server.key, "--token_file=" + tokens,
       "--worker_tls_cert=" + server.cert, "--worker_tls_key=" + server.key, "--worker_tls_ca=" + ca_file});
  options.worker_flags.insert(options.worker_flags.end(),
                              {"--tls", "--tls_ca=" + ca_file, "--tls_cert=" + rank.cert,
                               "--tls_key=" + rank.key, "--tls_server_name=localhost"});
  options.client = {.server = "",
                    .tls = true,
                    .tls_files = {"", "", ca_file},
                    .tls_server_name = "localhost",
                    .token = "a-token"};
  auto started = Cluster::Start(options);
  ASSERT_TRUE(started.ok()) << started.status();
  Cluster& cluster = **started;
  EventLog events;
  EXPECT_TRUE(cluster.client().Generate(MakeRequest("a cat", 2), &events, nullptr).ok());

  // Without a token, with a wrong one, without TLS, with another server's roots.
  ClientOptions other = cluster.client_options();
  other.token = "";
  EXPECT_EQ((*GenerationClient::Create(other))->GetModelInfo(kClusterDeadline).status().code(),
            absl::StatusCode::kUnauthenticated);
  other.token = "b-token";
  EXPECT_EQ(
      (*GenerationClient::Create(other))->Generate(MakeRequest("a cat", 2), &events, nullptr).status().code(),
      absl::StatusCode::kUnauthenticated);
  EXPECT_FALSE((*GenerationClient::Create({.server = cluster.address(), .token = "a-token"}))
                   ->GetModelInfo(absl::Seconds(5))
                   .ok());
  const TestCertificate stranger = MakeCertificate({.name = "ca", .is_ca = true});
  other = cluster.client_options();
  other.tls_files.ca = File("stranger_ca.pem", stranger.certificate);
  EXPECT_EQ((*GenerationClient::Create(other))->GetModelInfo(absl::Seconds(5)).status().code(),
            absl::StatusCode::kUnavailable);

  // Ranks without a certificate, or with one of another root, never get to say who they are.
  const TlsFiles wrong = Pair("access_wrong", MakeCertificate({.name = "rank"}, &stranger), ca_file);
  for (const std::vector<std::string>& extra :
       {std::vector<std::string>{"--tls", "--tls_ca=" + ca_file, "--tls_server_name=localhost"},
        {"--tls", "--tls_ca=" + ca_file, "--tls_server_name=localhost", "--tls_cert=" + wrong.cert,
         "--tls_key=" + wrong.key},
        {}}) {
    std::vector<std::string> arguments = {kWorker,       kNano,
                                          kNanoCard,     "--group=strangers",
                                          "--threads=1", "--coordinator=" + cluster.worker_address()};
    arguments.insert(arguments.end(), extra.begin(), extra.end());
    const std::string log = testing::TempDir() + "/access_stranger.log";
    std::filesystem::remove(log);
    auto process = Process::Start(arguments, log);
    ASSERT_TRUE(process.ok());
    // It says why it is dialling again.
    EXPECT_TRUE(AwaitCondition([&] { return (*process)->Log().find("reason=") != std::string::npos; },
                               kClusterDeadline));
  }
  ClientOptions admin = cluster.client_options();
  admin.token = "o-token";
  const auto status = (*StatusClient::Create(admin))->GetStatus(kClusterDeadline);
  ASSERT_TRUE(status.ok()) << status.status();
  ASSERT_EQ(status->groups.size(), 1u);
  EXPECT_EQ(status->groups[0].name, "default");
  EXPECT_THAT(cluster.coordinator().Log(), Not(HasSubstr("strangers")));
  EXPECT_THAT(cluster.coordinator().Log(), HasSubstr("token=alice"));
  EXPECT_THAT(cluster.Logs(), Not(HasSubstr("a-token")));

  // The command line comes in the same way.
  const std::string token_file = File("access_o_token", "o-token\n");
  const std::vector<std::string> connection = {"--endpoint=" + cluster.address(), "--tls",
                                               "--tls_ca=" + ca_file, "--tls_server_name=localhost",
                                               "--token_file=" + token_file};
  int exit_code = -1;
  std::vector<std::string> arguments = {kCli, "status"};
  arguments.insert(arguments.end(), connection.begin(), connection.end());
  EXPECT_THAT(Run(arguments, exit_code), HasSubstr("group default: serving, 2 of 2 ranks"));
  EXPECT_EQ(exit_code, 0);
  arguments = {kCli, "watch", "--count=2", "--interval=100ms", "--json"};
  arguments.insert(arguments.end(), connection.begin(), connection.end());
  const std::string watched = Run(arguments, exit_code);
  EXPECT_EQ(exit_code, 0) << watched;
  EXPECT_EQ(std::count(watched.begin(), watched.end(), '\n'), 2) << watched;
  EXPECT_THAT(watched, HasSubstr("\"requests_succeeded\":1"));
  EXPECT_THAT(watched, HasSubstr("\"code\":\"UNAUTHENTICATED\""));

  // A token that is taken from the file counts no more, without a restart.
  File("access_tokens", TokenLine("ops", "o-token", "admin"));
  EXPECT_TRUE(AwaitCondition(
      [&] {
        return absl::IsUnauthenticated(
            (*GenerationClient::Create(cluster.client_options()))->GetModelInfo(kClusterDeadline).status());
      },
      kClusterDeadline));
}

TEST_F(AccessTest, RanksShareASecret) {
  ClusterOptions options = NanoCluster(2);
  const std::string secret = File("access_secret", "correct horse battery staple\n");
  options.coordinator_flags.push_back("--worker_secret_file=" + secret);
  options.worker_flags.push_back("--secret_file=" + secret);
  auto cluster = Cluster::Start(options);
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  EventLog events;
  EXPECT_TRUE((*cluster)->client().Generate(MakeRequest("a cat", 2), &events, nullptr).ok());
  const std::string wrong = File("access_wrong_secret", "incorrect horse battery staple");
  for (const std::string& flag : {std::string("--threads=1"), "--secret_file=" + wrong}) {
    const std::string log = testing::TempDir() + "/access_secret.log";
    std::filesystem::remove(log);
    auto process = Process::Start({kWorker, kNano, kNanoCard, "--group=strangers", "--threads=1",
                                   "--coordinator=" + (*cluster)->worker_address(), flag},
                                  log);
    ASSERT_TRUE(process.ok());
    EXPECT_TRUE(AwaitCondition(
        [&] { return (*process)->Log().find("no proof of the shared secret") != std::string::npos; },
        kClusterDeadline))
        << (*process)->Log();
  }
  EXPECT_THAT((*cluster)->coordinator().Log(),
              HasSubstr("rank refused reason=\"no proof of the shared secret\""));
  EXPECT_THAT((*cluster)->coordinator().Log(), Not(HasSubstr("strangers")));
  EXPECT_THAT((*cluster)->Logs(), Not(HasSubstr("horse")));
}

TEST_F(AccessTest, PortsThatOthersReachNeedTheirGuards) {
  const TestCertificate ca = MakeCertificate({.name = "ca", .is_ca = true});
  const TlsFiles server =
      Pair("access_open", MakeCertificate({}, &ca), File("access_open_ca.pem", ca.certificate));
  const std::string short_secret = File("access_short", "short");
  const std::string bad_tokens = File("access_bad", "alice token\n");
  const std::pair<std::vector<std::string>, std::string> table[] = {
      {{"--listen=0.0.0.0:0"}, "--listen=0.0.0.0:0 can be reached by others: give --tls_cert"},
      {{"--listen=[::]:0", "--tls_cert=" + server.cert, "--tls_key=" + server.key},
       "give --token_file or --tls_client_ca"},
      {{"--worker_listen=0.0.0.0:0", "--insecure_listen"}, "give --worker_tls_ca or --worker_secret_file"},
      {{"--tls_cert=" + server.cert}, "belong together"},
      {{"--tls_client_ca=" + server.ca}, "need a certificate of our own"},
      {{"--worker_secret_file=" + short_secret}, "expected at least 16"},
      {{"--worker_tls_cert=/nowhere.pem", "--worker_tls_key=/nowhere.key"}, "/nowhere.pem"},
      {{"--introspection=maybe"}, "--introspection is maybe"},
      {{"--log_format=xml"}, "--log_format is xml"},
      {{"--metrics_listen=nowhere"}, "--metrics_listen"},
  };
  for (const auto& [flags, reason] : table) {
    std::vector<std::string> arguments = {kCoordinator, kNano, "--worker_listen=127.0.0.1:0",
                                          "--listen=127.0.0.1:0"};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    int exit_code = -1;
    EXPECT_THAT(Run(arguments, exit_code), HasSubstr(reason));
    EXPECT_EQ(exit_code, 2) << flags[0];
  }
  int exit_code = -1;
  EXPECT_THAT(Run({kCoordinator, kNano, "--listen=127.0.0.1:0", "--worker_listen=127.0.0.1:0",
                   "--token_file=" + bad_tokens},
                  exit_code),
              HasSubstr("line 1"));
  EXPECT_EQ(exit_code, 1);
  EXPECT_THAT(Run({kWorker, kNano, "--tls_ca=" + server.ca}, exit_code), HasSubstr("need --tls"));
  EXPECT_EQ(exit_code, 2);
  EXPECT_THAT(Run({kCli, "info", "--server=10.0.0.1:1", "--token_file=" + short_secret}, exit_code),
              HasSubstr("use TLS"));
  EXPECT_EQ(exit_code, 2);
}

}  // namespace
}  // namespace lancet
