// A file that several threads write at chosen places. It appears under its name only when it is whole.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace lancet {

class OutputFile {
 public:
  // Creates path + ".part" beside where the file will be. Errors name the path.
  static absl::StatusOr<std::unique_ptr<OutputFile>> Create(const std::string& path);
  // Removes what was not finished.
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  // Thread-safe for places that do not overlap.
  absl::Status WriteAt(int64_t offset, absl::Span<const std::byte> bytes) const;
  absl::Status WriteAt(int64_t offset, absl::string_view text) const;
  // Gives the file its name. Nothing may be written afterwards.
  absl::Status Finish();

 private:
  OutputFile(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}

  const std::string path_;
  int fd_;
  bool finished_ = false;
};

// A whole small file.
absl::Status WriteTextFile(const std::string& path, absl::string_view text);

}  // namespace lancet
