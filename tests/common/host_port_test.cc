#include "common/host_port.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lancet {
namespace {

using ::testing::HasSubstr;

TEST(ParseHostPortTest, TakesNamesAndBothKindsOfAddress) {
  const struct {
    const char* text;
    const char* host;
    int port;
  } table[] = {
      {"127.0.0.1:0", "127.0.0.1", 0}, {"localhost:65535", "localhost", 65535}, {"[::1]:80", "::1", 80}};
  for (const auto& row : table) {
    const auto address = ParseHostPort(row.text);
    ASSERT_TRUE(address.ok()) << address.status();
    EXPECT_EQ(address->host, row.host);
    EXPECT_EQ(address->port, row.port);
  }
}

TEST(ParseHostPortTest, NamesTheAddressThatIsNone) {
  for (const char* text :
       {"", "host", "host:", ":80", "host:65536", "host:-1", "::1:80", "[::1:80", "host:80x"}) {
    const auto address = ParseHostPort(text);
    EXPECT_EQ(address.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(address.status().message()), HasSubstr(absl::StrCat("'", text, "'")));
  }
}

TEST(IsLoopbackTest, TellsThisMachineFromTheNetwork) {
  for (const char* text :
       {"127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1", "unix:/run/x", "ipv4:127.0.0.1:1"}) {
    EXPECT_TRUE(IsLoopback(text)) << text;
  }
  for (const char* text : {"0.0.0.0:1", "[::]:1", "10.0.0.1:1", "127.0.0.1.evil:1", "localhost.evil:1", "",
                           "127.0.0.1", "1270.0.0.1:1"}) {
    EXPECT_FALSE(IsLoopback(text)) << text;
  }
}

}  // namespace
}  // namespace lancet
