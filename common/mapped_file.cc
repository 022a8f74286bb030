#include "common/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <functional>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace lancet {
namespace {

// Closes a descriptor when the scope ends.
class ScopedFd {
 public:
  explicit ScopedFd(int fd) : fd_(fd) {}
  ~ScopedFd() {
    if (fd_ >= 0) close(fd_);
  }
  ScopedFd(const ScopedFd&) = delete;
  ScopedFd& operator=(const ScopedFd&) = delete;
  int get() const { return fd_; }

 private:
  const int fd_;
};

// Size of the regular file behind `fd`.
absl::StatusOr<size_t> RegularFileSize(int fd, const std::string& path) {
  struct stat info;
  if (fstat(fd, &info) != 0) return absl::ErrnoToStatus(errno, absl::StrCat(path, ": cannot stat"));
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": is not a regular file"));
  }
  return static_cast<size_t>(info.st_size);
}

}  // namespace

absl::StatusOr<std::unique_ptr<MappedFile>> MappedFile::Open(const std::string& path) {
  const ScopedFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (fd.get() < 0) return absl::ErrnoToStatus(errno, absl::StrCat(path, ": cannot open"));
  LANCET_ASSIGN_OR_RETURN(const size_t size, RegularFileSize(fd.get(), path));
  const std::byte* data = nullptr;
  if (size > 0) {
    void* mapped = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd.get(), 0);
    if (mapped == MAP_FAILED) {
      return absl::ErrnoToStatus(errno, absl::StrCat(path, ": cannot map ", size, " bytes"));
    }
    data = static_cast<const std::byte*>(mapped);
  }
  return std::unique_ptr<MappedFile>(new MappedFile(path, data, size));
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<std::byte*>(data_), size_);
}

void MappedFile::DropPages(size_t offset, size_t size) const {
  if (offset >= size_) return;
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t begin = offset / page * page;
  const size_t end = offset + std::min(size, size_ - offset);
  // Pages shared with a neighbour go too: they come back from the page cache when touched. Failure costs
  // memory only.
  madvise(const_cast<std::byte*>(data_) + begin, end - begin, MADV_DONTNEED);
}

void DropPagesOf(const ReadOnlyFile& file, const std::byte* data, size_t size) {
  const absl::Span<const std::byte> bytes = file.bytes();
  const std::less<const std::byte*> before;  // a total order, also between different objects
  if (before(data, bytes.data()) || !before(data, bytes.data() + bytes.size())) return;
  file.DropPages(static_cast<size_t>(data - bytes.data()), size);
}

absl::StatusOr<std::string> ReadTextFile(const std::string& path, size_t max_bytes) {
  const ScopedFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (fd.get() < 0) return absl::ErrnoToStatus(errno, absl::StrCat(path, ": cannot open"));
  LANCET_ASSIGN_OR_RETURN(const size_t size, RegularFileSize(fd.get(), path));
  if (size > max_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": has ", size, " bytes; the limit is ", max_bytes));
  }
  std::string text(size, '\0');
  size_t done = 0;
  while (done < size) {
    const ssize_t got = read(fd.get(), text.data() + done, size - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return absl::ErrnoToStatus(errno, absl::StrCat(path, ": cannot read"));
    if (got == 0) {
      return absl::DataLossError(absl::StrCat(path, ": ends after ", done, " of ", size, " bytes"));
    }
    done += static_cast<size_t>(got);
  }
  return text;
}

}  // namespace lancet
