#include "common/zip_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/torch_archive.h"

namespace lancet {
namespace {

using ::testing::HasSubstr;

absl::Span<const std::byte> AsBytes(absl::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

absl::StatusOr<ZipArchive> Parse(absl::string_view bytes) {
  return ZipArchive::Parse(AsBytes(bytes), "file");
}

absl::string_view AsText(const std::unique_ptr<std::byte[]>& bytes, size_t size) {
  return {reinterpret_cast<const char*>(bytes.get()), size};
}

TEST(ZipArchiveTest, FindsAndUnpacksMembers) {
  const std::string bytes =
      ZipBytes({{.name = "stored", .content = "plain text"},
                {.name = "deflated", .content = std::string(1000, 'z'), .deflate = true},
                {.name = "empty", .content = ""},
                {.name = "empty deflated", .content = "", .deflate = true}});
  const auto archive = Parse(bytes);
  ASSERT_THAT(archive, IsOk());
  EXPECT_EQ(archive->members().size(), 4u);
  EXPECT_EQ(archive->Find("absent"), nullptr);
  for (const auto& [name, content] :
       std::vector<std::pair<std::string, std::string>>{{"stored", "plain text"},
                                                        {"deflated", std::string(1000, 'z')},
                                                        {"empty", ""},
                                                        {"empty deflated", ""}}) {
    const ZipMember* member = archive->Find(name);
    ASSERT_NE(member, nullptr) << name;
    const auto unpacked = UnpackZipMember(*member, 1000, "file");
    ASSERT_THAT(unpacked, IsOk());
    EXPECT_EQ(AsText(*unpacked, member->size), content);
  }
  EXPECT_THAT(UnpackZipMember(*archive->Find("deflated"), 999, "file"),
              Fails(absl::StatusCode::kResourceExhausted, HasSubstr("1000 bytes; the limit is 999")));
}

TEST(ZipArchiveTest, AcceptsACommentAtTheEnd) {
  std::string bytes = ZipBytes({{.name = "a", .content = "x"}});
  bytes[bytes.size() - 2] = 5;
  EXPECT_THAT(Parse(bytes + "hello"), IsOk());
  EXPECT_THAT(Parse(bytes + "hell"),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("no directory at its end")));
}

TEST(ZipArchiveTest, RefusesEveryTruncation) {
  const std::string bytes =
      ZipBytes({{.name = "a", .content = "some text"}, {.name = "b", .content = "more"}});
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_THAT(Parse(absl::string_view(bytes).substr(0, size)),
                Fails(absl::StatusCode::kInvalidArgument, HasSubstr("file: zip archive")));
  }
}

TEST(ZipArchiveTest, RefusesOddMembers) {
  const struct {
    const char* what;
    std::vector<TestZipMember> members;
    const char* message;
  } kCases[] = {
      {"encrypted", {{.name = "a", .content = "x", .flags = 1}}, "member 'a' is encrypted"},
      {"bzip2", {{.name = "a", .content = "x", .method = 12}}, "compression method 12"},
      {"twice", {{.name = "a", .content = "x"}, {.name = "a", .content = "y"}}, "two members 'a'"},
      {"longer than the file",
       {{.name = "a", .content = "x", .declared_size = 100000}},
       "runs past the members"},
      {"into the next member",
       {{.name = "a", .content = "x", .declared_size = 20}, {.name = "b", .content = "y"}},
       "members that overlap"},
  };
  for (const auto& c : kCases) {
    EXPECT_THAT(Parse(ZipBytes(c.members)), Fails(absl::StatusCode::kInvalidArgument, HasSubstr(c.message)))
        << c.what;
  }
}

// Offsets of fields in the end record, counted from the end of the file.
TEST(ZipArchiveTest, RefusesABadEndRecord) {
  const std::string good = ZipBytes({{.name = "a", .content = "x"}});
  const auto with = [&](size_t from_end, char value) {
    std::string bytes = good;
    bytes[bytes.size() - from_end] = value;
    return bytes;
  };
  EXPECT_THAT(Parse(good), IsOk());
  EXPECT_THAT(Parse(with(18, 1)), Fails(absl::StatusCode::kInvalidArgument, HasSubstr("several disks")));
  EXPECT_THAT(Parse(with(12, 2)), Fails(absl::StatusCode::kInvalidArgument, HasSubstr("damaged directory")));
  EXPECT_THAT(Parse(with(10, 1)), Fails(absl::StatusCode::kInvalidArgument, HasSubstr("zip archive")));
  EXPECT_THAT(Parse(with(7, 127)), Fails(absl::StatusCode::kInvalidArgument, HasSubstr("which is outside")));
  EXPECT_THAT(Parse(with(3, 127)), Fails(absl::StatusCode::kInvalidArgument, HasSubstr("which is outside")));
}

TEST(ZipArchiveTest, RefusesALocalHeaderThatContradictsTheDirectory) {
  std::string bytes = ZipBytes({{.name = "a", .content = "x"}});
  bytes[30] = 'b';  // the name in the local header
  EXPECT_THAT(Parse(bytes),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("contradicts the directory")));
  bytes[30] = 'a';
  bytes[0] = 'Q';
  EXPECT_THAT(Parse(bytes), Fails(absl::StatusCode::kInvalidArgument, HasSubstr("has no header at byte 0")));
}

}  // namespace
}  // namespace lancet
