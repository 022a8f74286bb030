#include "tools/make_random/output_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace lancet {
namespace {

std::string PartPath(const std::string& path) { return absl::StrCat(path, ".part"); }

}  // namespace

absl::StatusOr<std::unique_ptr<OutputFile>> OutputFile::Create(const std::string& path) {
  const int fd = open(PartPath(path).c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat(PartPath(path), ": cannot create"));
  return std::unique_ptr<OutputFile>(new OutputFile(path, fd));
}

OutputFile::~OutputFile() {
  if (fd_ >= 0) close(fd_);
  if (!finished_) unlink(PartPath(path_).c_str());
}

absl::Status OutputFile::WriteAt(int64_t offset, absl::Span<const std::byte> bytes) const {
  while (!bytes.empty()) {
    const ssize_t written = pwrite(fd_, bytes.data(), bytes.size(), offset);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return absl::ErrnoToStatus(errno, absl::StrCat(path_, ": cannot write"));
    offset += written;
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

absl::Status OutputFile::WriteAt(int64_t offset, absl::string_view text) const {
  return WriteAt(offset, absl::MakeConstSpan(reinterpret_cast<const std::byte*>(text.data()), text.size()));
}

absl::Status OutputFile::Finish() {
  const int fd = std::exchange(fd_, -1);
  if (close(fd) != 0) return absl::ErrnoToStatus(errno, absl::StrCat(path_, ": cannot close"));
  if (rename(PartPath(path_).c_str(), path_.c_str()) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat(path_, ": cannot rename ", PartPath(path_)));
  }
  finished_ = true;
  return absl::OkStatus();
}

absl::Status WriteTextFile(const std::string& path, absl::string_view text) {
  LANCET_ASSIGN_OR_RETURN(const std::unique_ptr<OutputFile> file, OutputFile::Create(path));
  LANCET_RETURN_IF_ERROR(file->WriteAt(0, text));
  return file->Finish();
}

}  // namespace lancet
