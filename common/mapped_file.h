// Bytes of a file, read-only. Readers of file formats take a ReadOnlyFile, so that tests can hand them any
// bytes: truncated, damaged or hostile ones.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace lancet {

// Thread-safe: everything is const.
class ReadOnlyFile {
 public:
  virtual ~ReadOnlyFile() = default;

  // For messages.
  virtual const std::string& path() const = 0;
  // All of the file; valid as long as the object.
  virtual absl::Span<const std::byte> bytes() const = 0;
  // Says that [offset, offset + size) will not be read soon, so that its pages need not stay resident.
  // Reading it again is correct, only slower.
  virtual void DropPages(size_t offset, size_t size) const = 0;
};

// A memory map. A file that another process shortens while it is mapped kills the reader (SIGBUS): replace
// checkpoints by renaming, never in place.
class MappedFile final : public ReadOnlyFile {
 public:
  // NotFound, PermissionDenied, or InvalidArgument when the path is not a regular file.
  static absl::StatusOr<std::unique_ptr<MappedFile>> Open(const std::string& path);
  ~MappedFile() override;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& path() const override { return path_; }
  absl::Span<const std::byte> bytes() const override { return {data_, size_}; }
  void DropPages(size_t offset, size_t size) const override;

 private:
  MappedFile(std::string path, const std::byte* data, size_t size)
      : path_(std::move(path)), data_(data), size_(size) {}

  const std::string path_;
  const std::byte* const data_;  // null when the file is empty
  const size_t size_;
};

// DropPages for memory that may or may not lie in the file: copies of parts of it are left alone.
void DropPagesOf(const ReadOnlyFile& file, const std::byte* data, size_t size);

// The text of a small file. InvalidArgument when it is longer than `max_bytes`.
absl::StatusOr<std::string> ReadTextFile(const std::string& path, size_t max_bytes);

}  // namespace lancet
