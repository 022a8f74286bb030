// A ReadOnlyFile of any bytes: truncated, damaged or hostile ones, without touching the disk.
#pragma once

#include <cstring>
#include <memory>
#include <string>

#include "absl/strings/string_view.h"
#include "common/mapped_file.h"

namespace lancet {

class InMemoryFile final : public ReadOnlyFile {
 public:
  // `shift` moves the content away from an aligned address.
  explicit InMemoryFile(absl::string_view content, size_t shift = 0)
      : size_(content.size()), shift_(shift), memory_(new std::byte[content.size() + shift]) {
    if (!content.empty()) std::memcpy(memory_.get() + shift, content.data(), content.size());
  }

  const std::string& path() const override { return path_; }
  absl::Span<const std::byte> bytes() const override { return {memory_.get() + shift_, size_}; }
  void DropPages(size_t offset, size_t size) const override {
    dropped_bytes_ += size;
    (void)offset;
  }
  size_t dropped_bytes() const { return dropped_bytes_; }

 private:
  const std::string path_ = "memory";
  const size_t size_;
  const size_t shift_;
  // Exactly as large as the content, so that a sanitizer sees every read past it.
  std::unique_ptr<std::byte[]> memory_;
  mutable size_t dropped_bytes_ = 0;
};

}  // namespace lancet
