#include "worker/collective/shm_segment.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <new>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/status_macros.h"

namespace lancet {
namespace {

// Between two looks for a segment that rank 0 has not made yet.
constexpr absl::Duration kOpenRetryInterval = absl::Milliseconds(2);

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  ~FileDescriptor() {
    if (fd_ >= 0) {
      close(fd_);
    }
  }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  int get() const { return fd_; }

 private:
  const int fd_;
};

std::string ErrorText(int error) { return std::generic_category().message(error); }

// /dev/shm/NAME is where shm_open puts it.
std::string Describe(const std::string& name) { return absl::StrCat("shared memory segment '", name, "'"); }

// The page-aligned mapping of `fd` (-1: anonymous), or the error.
absl::StatusOr<std::byte*> Map(int fd, size_t bytes, const std::string& name) {
  const int flags = MAP_SHARED | (fd < 0 ? MAP_ANONYMOUS : 0);
  void* base = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, fd, 0);
  if (base == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat(Describe(name), ": cannot map ", bytes, " bytes: ", ErrorText(errno)));
  }
  return static_cast<std::byte*>(base);
}

// OK if `fd` is a complete segment of our own; Unavailable if it is still being made.
absl::Status CheckFile(int fd, size_t bytes, const std::string& name) {
  struct stat info = {};
  if (fstat(fd, &info) != 0) {
    return absl::InternalError(absl::StrCat(Describe(name), ": fstat: ", ErrorText(errno)));
  }
  if (!S_ISREG(info.st_mode) || info.st_uid != geteuid()) {
    return absl::FailedPreconditionError(
        absl::StrCat(Describe(name), " belongs to user ", info.st_uid, ", not to ", geteuid()));
  }
  if (info.st_size == 0) {
    return absl::UnavailableError("not sized yet");
  }
  // A segment of another shape is smaller or larger. The header says how it differs, if it is there.
  if (static_cast<size_t>(info.st_size) < sizeof(ShmHeader)) {
    return absl::FailedPreconditionError(
        absl::StrCat(Describe(name), " has ", info.st_size, " bytes, expected ", bytes));
  }
  return absl::OkStatus();
}

absl::Status CheckHeader(const ShmHeader& header, int world_size, size_t capacity_floats, size_t bytes,
                         const std::string& name) {
  if (header.magic.load(std::memory_order_acquire) != kShmMagic) {
    return absl::UnavailableError("not filled in yet");
  }
  if (header.version != kShmVersion || header.world_size != static_cast<uint32_t>(world_size) ||
      header.capacity_floats != capacity_floats || header.total_bytes != bytes) {
    return absl::FailedPreconditionError(
        absl::StrCat(Describe(name), " has version ", header.version, ", world_size ", header.world_size,
                     " and capacity_floats ", header.capacity_floats, "; this rank has version ", kShmVersion,
                     ", world_size ", world_size, " and capacity_floats ", capacity_floats));
  }
  return absl::OkStatus();
}

// Unavailable while the segment is not there or not ready.
absl::StatusOr<std::byte*> TryOpen(const std::string& name, int world_size, size_t capacity_floats,
                                   size_t bytes) {
  const FileDescriptor fd(shm_open(absl::StrCat("/", name).c_str(), O_RDWR | O_CLOEXEC, 0));
  if (fd.get() < 0) {
    const bool missing = errno == ENOENT;
    const std::string text = absl::StrCat(Describe(name), ": ", ErrorText(errno));
    return missing ? absl::UnavailableError(text) : absl::FailedPreconditionError(text);
  }
  LANCET_RETURN_IF_ERROR(CheckFile(fd.get(), bytes, name));
  // The header first, in a mapping of its own: past the end of a smaller file there would be only SIGBUS.
  LANCET_ASSIGN_OR_RETURN(std::byte * header, Map(fd.get(), sizeof(ShmHeader), name));
  const absl::Status checked =
      CheckHeader(*reinterpret_cast<const ShmHeader*>(header), world_size, capacity_floats, bytes, name);
  munmap(header, sizeof(ShmHeader));
  LANCET_RETURN_IF_ERROR(checked);
  return Map(fd.get(), bytes, name);
}

}  // namespace

absl::StatusOr<std::shared_ptr<ShmSegment>> ShmSegment::CreateNamed(const std::string& name, int world_size,
                                                                    size_t capacity_floats) {
  const size_t bytes = ShmLayout(world_size, capacity_floats).total_bytes;
  const FileDescriptor fd(
      shm_open(absl::StrCat("/", name).c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (fd.get() < 0) {
    const bool exists = errno == EEXIST;
    const std::string text = absl::StrCat(Describe(name), ": cannot create: ", ErrorText(errno));
    return exists ? absl::AlreadyExistsError(text) : absl::InternalError(text);
  }
  // Reserves the memory; a full /dev/shm would otherwise show up as SIGBUS in the middle of a sum.
  int error = 0;
  do {
    error = posix_fallocate(fd.get(), 0, static_cast<off_t>(bytes));
  } while (error == EINTR);
  if (error != 0) {
    Unlink(name);
    return absl::ResourceExhaustedError(absl::StrCat(Describe(name), ": /dev/shm cannot hold its ", bytes,
                                                     " bytes (world_size ", world_size, ", capacity_floats ",
                                                     capacity_floats, "): ", ErrorText(error)));
  }
  absl::StatusOr<std::byte*> base = Map(fd.get(), bytes, name);
  if (!base.ok()) {
    Unlink(name);
    return base.status();
  }
  std::shared_ptr<ShmSegment> segment(new ShmSegment(*base, world_size, capacity_floats));
  segment->InitializeHeader();
  return segment;
}

absl::StatusOr<std::shared_ptr<ShmSegment>> ShmSegment::OpenNamed(const std::string& name, int world_size,
                                                                  size_t capacity_floats,
                                                                  absl::Time deadline) {
  const size_t bytes = ShmLayout(world_size, capacity_floats).total_bytes;
  while (true) {
    absl::StatusOr<std::byte*> base = TryOpen(name, world_size, capacity_floats, bytes);
    if (base.ok()) {
      return std::shared_ptr<ShmSegment>(new ShmSegment(*base, world_size, capacity_floats));
    }
    if (!absl::IsUnavailable(base.status())) {
      return base.status();
    }
    const absl::Duration left = deadline - absl::Now();
    if (left <= absl::ZeroDuration()) {
      return absl::DeadlineExceededError(
          absl::StrCat("rank 0 did not create its segment in time: ", base.status().message()));
    }
    absl::SleepFor(std::min(left, kOpenRetryInterval));
  }
}

absl::StatusOr<std::shared_ptr<ShmSegment>> ShmSegment::CreateAnonymous(int world_size,
                                                                        size_t capacity_floats) {
  LANCET_ASSIGN_OR_RETURN(std::byte * base,
                          Map(-1, ShmLayout(world_size, capacity_floats).total_bytes, "(anonymous)"));
  std::shared_ptr<ShmSegment> segment(new ShmSegment(base, world_size, capacity_floats));
  segment->InitializeHeader();
  return segment;
}

void ShmSegment::Unlink(const std::string& name) { shm_unlink(absl::StrCat("/", name).c_str()); }

ShmSegment::ShmSegment(std::byte* base, int world_size, size_t capacity_floats)
    : base_(base),
      world_size_(world_size),
      capacity_floats_(capacity_floats),
      layout_(world_size, capacity_floats) {}

ShmSegment::~ShmSegment() { munmap(base_, layout_.total_bytes); }

void ShmSegment::InitializeHeader() {
  // The mapping is zeroed, and zero is what every field starts with, so the objects only have to begin their
  // lives.
  ShmHeader* header = new (base_) ShmHeader;
  for (int rank = 0; rank < world_size_; ++rank) {
    new (&slot(rank)) ShmRankSlot;
  }
  header->version = kShmVersion;
  header->world_size = static_cast<uint32_t>(world_size_);
  header->capacity_floats = capacity_floats_;
  header->total_bytes = layout_.total_bytes;
  header->magic.store(kShmMagic, std::memory_order_release);
}

ShmHeader& ShmSegment::header() const { return *reinterpret_cast<ShmHeader*>(base_); }

ShmRankSlot& ShmSegment::slot(int rank) const {
  return *reinterpret_cast<ShmRankSlot*>(base_ + sizeof(ShmHeader) + rank * sizeof(ShmRankSlot));
}

absl::Span<float> ShmSegment::partial(int rank) const {
  return absl::MakeSpan(
      reinterpret_cast<float*>(base_ + layout_.partial_offset + rank * layout_.partial_stride),
      capacity_floats_);
}

absl::Span<float> ShmSegment::result() const {
  return absl::MakeSpan(reinterpret_cast<float*>(base_ + layout_.result_offset), capacity_floats_);
}

absl::Span<std::byte> ShmSegment::exchange(int rank, uint32_t parity) const {
  return absl::MakeSpan(base_ + layout_.exchange_offset + (2 * rank + parity) * kShmExchangeBytes,
                        kShmExchangeBytes);
}

}  // namespace lancet
