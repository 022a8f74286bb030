#include "worker/cpu_list.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lancet {
namespace {

using ::testing::ElementsAre;

TEST(CpuListTest, ReadsNumbersAndRanges) {
  const auto cpus = ParseCpuList("5,0-3,2");
  ASSERT_TRUE(cpus.ok()) << cpus.status();
  EXPECT_THAT(*cpus, ElementsAre(0, 1, 2, 3, 5));
}

TEST(CpuListTest, NamesTheBadPart) {
  for (const char* text : {"", "a", "1,", "-1", "3-1", "1-", "1024", "0-99999"}) {
    const auto cpus = ParseCpuList(text);
    EXPECT_EQ(cpus.status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
  EXPECT_THAT(std::string(ParseCpuList("0,3-1").status().message()), testing::HasSubstr("\"3-1\""));
}

TEST(CpuListTest, SomeProcessorIsUsable) { EXPECT_GE(UsableCpus(), 1); }

}  // namespace
}  // namespace lancet
