#include "common/mapped_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "tests/testing/in_memory_file.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/tensor_file.h"

namespace lancet {
namespace {

using ::testing::HasSubstr;

std::string TempPath(absl::string_view name) {
  return absl::StrCat(::testing::TempDir(), "/mapped_file_test/", name);
}

absl::string_view AsText(const ReadOnlyFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

TEST(MappedFileTest, HoldsTheBytesAlsoAfterDroppingPages) {
  std::string content(3 * 4096 + 17, '\0');
  for (size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>(i * 31);
  const std::string path = TempPath("content");
  WriteFile(path, content);
  const auto file = MappedFile::Open(path);
  ASSERT_THAT(file, IsOk());
  EXPECT_EQ((*file)->path(), path);
  EXPECT_EQ(AsText(**file), content);
  (*file)->DropPages(5000, 100);
  (*file)->DropPages(0, content.size() * 2);
  (*file)->DropPages(content.size(), 1);
  EXPECT_EQ(AsText(**file), content);
}

TEST(MappedFileTest, TakesAnEmptyFile) {
  WriteFile(TempPath("empty"), "");
  const auto file = MappedFile::Open(TempPath("empty"));
  ASSERT_THAT(file, IsOk());
  EXPECT_TRUE((*file)->bytes().empty());
  (*file)->DropPages(0, 10);
}

TEST(MappedFileTest, RefusesWhatIsNoFile) {
  EXPECT_THAT(MappedFile::Open(TempPath("absent")), Fails(absl::StatusCode::kNotFound, HasSubstr("absent")));
  EXPECT_THAT(MappedFile::Open(::testing::TempDir()),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("not a regular file")));
  EXPECT_THAT(MappedFile::Open("/dev/zero"),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("not a regular file")));
}

TEST(DropPagesOfTest, LeavesMemoryOutsideOfTheFileAlone) {
  const InMemoryFile file("0123456789");
  DropPagesOf(file, file.bytes().data() + 2, 4);
  EXPECT_EQ(file.dropped_bytes(), 4u);
  const std::byte elsewhere{};
  DropPagesOf(file, &elsewhere, 1);
  DropPagesOf(file, nullptr, 0);
  DropPagesOf(file, file.bytes().data() + file.bytes().size(), 1);
  EXPECT_EQ(file.dropped_bytes(), 4u);
}

TEST(ReadTextFileTest, ReadsUpToTheLimit) {
  WriteFile(TempPath("text"), "hello");
  EXPECT_EQ(ReadTextFile(TempPath("text"), 5).value(), "hello");
  EXPECT_THAT(ReadTextFile(TempPath("text"), 4),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("5 bytes; the limit is 4")));
  EXPECT_THAT(ReadTextFile(TempPath("absent"), 4), Fails(absl::StatusCode::kNotFound, HasSubstr("absent")));
}

}  // namespace
}  // namespace lancet
