#include "rpc/tls.h"

#include <gmock/gmock.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <chrono>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/testing/certificates.h"

namespace lancet {
namespace {

using ::testing::HasSubstr;

class TlsTest : public ::testing::Test {
 protected:
  TlsTest() {
    const TestCertificate server = MakeCertificate({}, &ca_);
    const TestCertificate client = MakeCertificate({.name = "client"}, &ca_);
    Write("ca.pem", ca_.certificate);
    WritePair("server", server);
    WritePair("client", client);
  }

  std::string Write(const std::string& name, const std::string& text) {
    return WriteTestFile(::testing::TempDir(), name, text);
  }
  void WritePair(const std::string& name, const TestCertificate& pair) {
    Write(name + ".pem", pair.certificate);
    Write(name + ".key", pair.key);
  }
  static std::string Path(const std::string& name) { return ::testing::TempDir() + "/" + name; }
  static TlsFiles Files(const std::string& pair, bool with_ca) {
    return {pair.empty() ? "" : Path(pair + ".pem"), pair.empty() ? "" : Path(pair + ".key"),
            with_ca ? Path("ca.pem") : ""};
  }

  void StartServer(const TlsFiles& files) {
    const auto credentials = MakeTlsServerCredentials(files);
    ASSERT_TRUE(credentials.ok()) << credentials.status();
    grpc::ServerBuilder builder;
    builder.RegisterCallbackGenericService(&service_);
    builder.AddListeningPort("127.0.0.1:0", *credentials, &port_);
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
  }
  // Whether a connection comes about.
  bool Connects(const std::shared_ptr<grpc::ChannelCredentials>& credentials,
                const std::string& name = "localhost") {
    grpc::ChannelArguments arguments;
    arguments.SetSslTargetNameOverride(name);
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    // A failed attempt is final for this look.
    arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 60000);
    const auto channel = grpc::CreateCustomChannel(absl::StrCat("127.0.0.1:", port_), credentials, arguments);
    const auto deadline = std::chrono::system_clock::now() + std::chrono::seconds(20);
    grpc_connectivity_state state = channel->GetState(true);
    while (state != GRPC_CHANNEL_READY && state != GRPC_CHANNEL_TRANSIENT_FAILURE &&
           channel->WaitForStateChange(state, deadline)) {
      state = channel->GetState(true);
    }
    if (state != GRPC_CHANNEL_READY) return false;
    // With TLS 1.3 the client has finished before the server has looked at its certificate; a server that
    // does not like it ends the connection instead of answering.
    const auto soon = std::chrono::system_clock::now() + std::chrono::milliseconds(300);
    return !channel->WaitForStateChange(GRPC_CHANNEL_READY, soon);
  }
  bool Connects(const TlsFiles& files, const std::string& name = "localhost") {
    const auto credentials = MakeTlsChannelCredentials(files);
    EXPECT_TRUE(credentials.ok()) << credentials.status();
    return credentials.ok() && Connects(*credentials, name);
  }

  const TestCertificate ca_ = MakeCertificate({.name = "ca", .is_ca = true});
  int port_ = 0;
  grpc::CallbackGenericService service_;  // a server must have one; knows no method
  std::unique_ptr<grpc::Server> server_;
};

TEST_F(TlsTest, ClientsCheckWhoTheServerIs) {
  StartServer(Files("server", false));
  EXPECT_TRUE(Connects(Files("", true)));
  EXPECT_FALSE(Connects(Files("", true), "elsewhere"));
  const TestCertificate other = MakeCertificate({.name = "other", .is_ca = true});
  EXPECT_FALSE(Connects({"", "", Write("other_ca.pem", other.certificate)}));
  EXPECT_FALSE(Connects(grpc::InsecureChannelCredentials()));
}

TEST_F(TlsTest, ServersAskForCertificatesThatLeadToTheirRoot) {
  StartServer(Files("server", true));
  EXPECT_TRUE(Connects(Files("client", true)));
  EXPECT_FALSE(Connects(Files("", true)));  // none
  const TestCertificate other_ca = MakeCertificate({.name = "ca", .is_ca = true});
  WritePair("stranger", MakeCertificate({.name = "client"}, &other_ca));
  EXPECT_FALSE(Connects(Files("stranger", true)));
  WritePair(
      "expired",
      MakeCertificate({.name = "client", .is_ca = false, .begins_in_s = -7200, .ends_in_s = -3600}, &ca_));
  EXPECT_FALSE(Connects(Files("expired", true)));
  WritePair("early", MakeCertificate(
                         {.name = "client", .is_ca = false, .begins_in_s = 3600, .ends_in_s = 7200}, &ca_));
  EXPECT_FALSE(Connects(Files("early", true)));
}

TEST_F(TlsTest, ExpiredServersAreNotTrusted) {
  WritePair(
      "server",
      MakeCertificate({.name = "localhost", .is_ca = false, .begins_in_s = -7200, .ends_in_s = -3600}, &ca_));
  StartServer(Files("server", false));
  EXPECT_FALSE(Connects(Files("", true)));
}

TEST_F(TlsTest, NewCertificatesCountWithoutARestart) {
  StartServer(Files("server", false));
  ASSERT_TRUE(Connects(Files("", true)));
  const TestCertificate next_ca = MakeCertificate({.name = "next", .is_ca = true});
  const TlsFiles next = {"", "", Write("next_ca.pem", next_ca.certificate)};
  EXPECT_FALSE(Connects(next));
  WritePair("server", MakeCertificate({}, &next_ca));
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(6 * kTlsReloadSeconds);
  bool connected = false;
  while (!connected && std::chrono::steady_clock::now() < deadline) connected = Connects(next);
  EXPECT_TRUE(connected);
  EXPECT_FALSE(Connects(Files("", true)));
}

TEST_F(TlsTest, FilesThatCannotBeUsedAreNamed) {
  const auto reason = [](const TlsFiles& files) { return std::string(CheckTlsFiles(files).message()); };
  EXPECT_TRUE(CheckTlsFiles(Files("server", true)).ok());
  EXPECT_TRUE(CheckTlsFiles({}).ok());
  EXPECT_THAT(reason({Path("server.pem"), "", ""}), HasSubstr("belong together"));
  EXPECT_THAT(reason({Path("nowhere.pem"), Path("server.key"), ""}), HasSubstr("nowhere.pem"));
  EXPECT_THAT(reason({Path("server.key"), Path("server.key"), ""}), HasSubstr("holds no certificate"));
  EXPECT_THAT(reason({Path("server.pem"), Path("server.pem"), ""}), HasSubstr("holds no private key"));
  EXPECT_THAT(reason({Path("server.pem"), Path("client.key"), ""}),
              HasSubstr("is not that of the certificate"));
  EXPECT_THAT(reason({"", "", Write("empty.pem", "")}), HasSubstr("empty.pem"));
  EXPECT_EQ(MakeTlsServerCredentials({}).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace lancet
