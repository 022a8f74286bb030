#include "worker/cgroup_limit.h"

#include <filesystem>
#include <fstream>

#include "gtest/gtest.h"

namespace lancet {
namespace {

namespace fs = std::filesystem;

class CgroupLimitTest : public testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::path(testing::TempDir()) /
            (std::string("cgroup_") + testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(root_);
  }
  void TearDown() override { fs::remove_all(root_); }

  void Write(const std::string& file, const std::string& text) {
    const fs::path path = root_ / file;
    fs::create_directories(path.parent_path());
    std::ofstream(path) << text;
  }
  std::optional<int> Cpus() { return CgroupCpus((root_ / "groups").string(), (root_ / "mount").string()); }

  fs::path root_;
};

TEST_F(CgroupLimitTest, SmallestQuotaOnTheWayUpCounts) {
  Write("groups", "0::/pods/pod7/worker\n");
  Write("mount/pods/pod7/worker/cpu.max", "max 100000\n");
  EXPECT_EQ(Cpus(), std::nullopt);
  Write("mount/pods/pod7/cpu.max", "350000 100000\n");
  EXPECT_EQ(Cpus(), 3);
  Write("mount/pods/cpu.max", "200000 100000\n");
  EXPECT_EQ(Cpus(), 2);
  Write("mount/pods/pod7/worker/cpu.max", "50000 100000\n");
  EXPECT_EQ(Cpus(), 1);
}

TEST_F(CgroupLimitTest, NamespacesBeginAtTheMount) {
  Write("groups", "0::/\n");
  Write("mount/cpu.max", "400000 100000\n");
  EXPECT_EQ(Cpus(), 4);
}

TEST_F(CgroupLimitTest, ReadsVersion1) {
  Write("groups", "12:cpuset:/a\n4:cpu,cpuacct:/docker/x\n1:name=systemd:/\n0::/ignored\n");
  Write("mount/cpu,cpuacct/docker/x/cpu.cfs_quota_us", "150000\n");
  Write("mount/cpu,cpuacct/docker/x/cpu.cfs_period_us", "50000\n");
  EXPECT_EQ(Cpus(), 3);
  Write("mount/cpu,cpuacct/docker/x/cpu.cfs_quota_us", "-1\n");
  EXPECT_EQ(Cpus(), std::nullopt);
}

TEST_F(CgroupLimitTest, OddFilesSetNoLimit) {
  EXPECT_EQ(Cpus(), std::nullopt);
  Write("groups", "nonsense\n0::/a\n");
  for (const char* text : {"", "max", "1", "a b", "0 100000", "-5 100000", "100000 0", "1 2 3"}) {
    Write("mount/a/cpu.max", text);
    EXPECT_EQ(Cpus(), std::nullopt) << text;
  }
}

}  // namespace
}  // namespace lancet
