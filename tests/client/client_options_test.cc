#include "client/client_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

namespace lancet {
namespace {

using ::testing::HasSubstr;

TEST(CheckClientOptionsTest, ATokenGoesNowhereInTheClear) {
  ClientOptions options;
  options.token = "t";
  EXPECT_TRUE(CheckClientOptions(options).ok());  // this machine
  options.server = "10.0.0.1:50051";
  EXPECT_THAT(std::string(CheckClientOptions(options).message()), HasSubstr("use TLS"));
  options.tls = true;
  EXPECT_TRUE(CheckClientOptions(options).ok());
}

TEST(CheckClientOptionsTest, CertificatesNeedTls) {
  ClientOptions options;
  options.tls_files.ca = "ca.pem";
  EXPECT_EQ(CheckClientOptions(options).code(), absl::StatusCode::kInvalidArgument);
  options.tls_files.ca = "";
  options.tls_server_name = "name";
  EXPECT_EQ(CheckClientOptions(options).code(), absl::StatusCode::kInvalidArgument);
  options.tls = true;
  EXPECT_TRUE(CheckClientOptions(options).ok());
  options.server = "";
  EXPECT_EQ(CheckClientOptions(options).code(), absl::StatusCode::kInvalidArgument);
}

TEST(ReadTokenFileTest, TakesOneWord) {
  const std::string path = ::testing::TempDir() + "/client_token";
  const auto read = [&path](const std::string& text) {
    std::ofstream(path) << text;
    return ReadTokenFile(path);
  };
  EXPECT_EQ(*read(" abc\n"), "abc");
  EXPECT_THAT(std::string(read("two words").status().message()), HasSubstr("more than one word"));
  EXPECT_THAT(std::string(read("\n").status().message()), HasSubstr(path));
  EXPECT_FALSE(read("line\r\nbreak").ok());
  EXPECT_FALSE(read(std::string(5000, 'x')).ok());
  EXPECT_THAT(std::string(ReadTokenFile("/nowhere").status().message()), HasSubstr("/nowhere"));
}

}  // namespace
}  // namespace lancet
