#include "worker/collective/shm_segment.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/worker/collective/rank_processes.h"

namespace lancet {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class ShmSegmentTest : public testing::Test {
 protected:
  void TearDown() override { ShmSegment::Unlink(name_); }

  absl::Status OpenStatus(int world_size, size_t capacity_floats) const {
    return ShmSegment::OpenNamed(name_, world_size, capacity_floats, absl::Now() + absl::Milliseconds(20))
        .status();
  }
  // A file under the segment's name that is none of ours.
  void MakeFile(off_t bytes) const {
    const int fd = shm_open(absl::StrCat("/", name_).c_str(), O_RDWR | O_CREAT | O_EXCL, 0600);
    ASSERT_GE(fd, 0);
    ASSERT_EQ(ftruncate(fd, bytes), 0);
    close(fd);
  }

  const std::string name_ = UniqueSegmentName();
};

TEST_F(ShmSegmentTest, OpenedSegmentSharesItsMemoryWithTheCreated) {
  auto created = ShmSegment::CreateNamed(name_, 2, 100);
  ASSERT_TRUE(created.ok()) << created.status();
  auto opened = ShmSegment::OpenNamed(name_, 2, 100, absl::Now() + absl::Seconds(60));
  ASSERT_TRUE(opened.ok()) << opened.status();
  (*created)->partial(1)[99] = 5;
  (*created)->result()[99] = 6;
  (*created)->exchange(1, 1)[kShmExchangeBytes - 1] = std::byte{7};
  (*created)->slot(1).pid.store(8);
  EXPECT_EQ((*opened)->partial(1)[99], 5);
  EXPECT_EQ((*opened)->result()[99], 6);
  EXPECT_EQ((*opened)->exchange(1, 1)[kShmExchangeBytes - 1], std::byte{7});
  EXPECT_EQ((*opened)->slot(1).pid.load(), 8);
  EXPECT_EQ((*opened)->partial(0)[99], 0);
}

TEST_F(ShmSegmentTest, IsForThisUserAlone) {
  auto created = ShmSegment::CreateNamed(name_, 1, 1);
  ASSERT_TRUE(created.ok()) << created.status();
  struct stat info = {};
  ASSERT_EQ(stat(absl::StrCat("/dev/shm/", name_).c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
}

TEST_F(ShmSegmentTest, AreasDoNotOverlapAndFillTheSegment) {
  const ShmLayout layout(3, 1000);
  auto segment = ShmSegment::CreateAnonymous(3, 1000);
  ASSERT_TRUE(segment.ok()) << segment.status();
  const auto offset = [&](const void* p) {
    return static_cast<size_t>(static_cast<const std::byte*>(p) -
                               reinterpret_cast<const std::byte*>(&(*segment)->header()));
  };
  size_t end = offset(&(*segment)->slot(2) + 1);
  for (int rank = 0; rank < 3; ++rank) {
    for (const uint32_t parity : {0u, 1u}) {
      EXPECT_GE(offset((*segment)->exchange(rank, parity).data()), end);
      end = offset((*segment)->exchange(rank, parity).data()) + kShmExchangeBytes;
    }
  }
  for (int rank = 0; rank < 3; ++rank) {
    EXPECT_GE(offset((*segment)->partial(rank).data()), end);
    end = offset((*segment)->partial(rank).data()) + 1000 * sizeof(float);
  }
  EXPECT_GE(offset((*segment)->result().data()), end);
  EXPECT_LE(offset((*segment)->result().data()) + 1000 * sizeof(float), layout.total_bytes);
}

TEST_F(ShmSegmentTest, TakenNameIsRefused) {
  auto first = ShmSegment::CreateNamed(name_, 1, 1);
  ASSERT_TRUE(first.ok()) << first.status();
  const absl::Status second = ShmSegment::CreateNamed(name_, 1, 1).status();
  EXPECT_EQ(second.code(), absl::StatusCode::kAlreadyExists) << second;
  EXPECT_THAT(std::string(second.message()), HasSubstr(name_));
}

TEST_F(ShmSegmentTest, SegmentThatNeverAppearsIsADeadline) {
  const absl::Status status = OpenStatus(2, 100);
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("rank 0 did not create"), HasSubstr(name_)));
}

TEST_F(ShmSegmentTest, SegmentThatIsNeverFilledInIsADeadline) {
  MakeFile(static_cast<off_t>(ShmLayout(2, 100).total_bytes));
  EXPECT_EQ(OpenStatus(2, 100).code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(ShmSegmentTest, OtherShapeIsRefusedNamingBoth) {
  auto created = ShmSegment::CreateNamed(name_, 2, 100);
  ASSERT_TRUE(created.ok()) << created.status();
  for (const absl::Status& status : {OpenStatus(2, 1 << 20), OpenStatus(4, 100), OpenStatus(2, 99)}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("world_size 2 and capacity_floats 100; this rank has"));
  }
}

TEST_F(ShmSegmentTest, OtherVersionIsRefused) {
  auto created = ShmSegment::CreateNamed(name_, 2, 100);
  ASSERT_TRUE(created.ok()) << created.status();
  (*created)->header().version = kShmVersion + 1;
  EXPECT_EQ(OpenStatus(2, 100).code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(ShmSegmentTest, FileTooSmallForAHeaderIsRefused) {
  MakeFile(100);
  EXPECT_EQ(OpenStatus(2, 100).code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(ShmSegmentTest, MoreThanTheHostHasIsRefusedAndLeavesNoName) {
  const absl::Status status = ShmSegment::CreateNamed(name_, kShmMaxRanks, kShmMaxCapacityFloats).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("/dev/shm"));
  EXPECT_FALSE(SegmentNameExists(name_));
}

}  // namespace
}  // namespace lancet
