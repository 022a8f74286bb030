#include "tools/quantize/state_dict_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/json.h"
#include "common/quote.h"
#include "common/status_macros.h"

namespace lancet {

absl::StatusOr<std::unique_ptr<StateDictWriter>> StateDictWriter::Create(const std::string& path,
                                                                         std::vector<Tensor> tensors) {
  std::sort(tensors.begin(), tensors.end(), [](const Tensor& a, const Tensor& b) {
    return std::make_tuple(-static_cast<int>(DTypeSize(a.dtype)), absl::string_view(a.name)) <
           std::make_tuple(-static_cast<int>(DTypeSize(b.dtype)), absl::string_view(b.name));
  });
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat(path, ": cannot create"));
  auto writer = std::unique_ptr<StateDictWriter>(new StateDictWriter(path, fd));
  std::string header;
  uint64_t offset = 0;
  for (const Tensor& tensor : tensors) {
    const uint64_t size = static_cast<uint64_t>(NumElements(tensor.shape)) * DTypeSize(tensor.dtype);
    absl::StrAppend(&header, header.empty() ? "{" : ",", nlohmann::json(tensor.name).dump(), ":{\"dtype\":\"",
                    DTypeName(tensor.dtype), "\",\"shape\":[", absl::StrJoin(tensor.shape, ","),
                    "],\"data_offsets\":[", offset, ",", offset + size, "]}");
    if (!writer->places_.emplace(tensor.name, Place{offset, size}).second) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": tensor ", Quote(tensor.name), " twice"));
    }
    offset += size;
  }
  header += header.empty() ? "{}" : "}";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  std::array<char, 8> length;
  for (size_t i = 0; i < length.size(); ++i) length[i] = static_cast<char>(header.size() >> (8 * i));
  const uint64_t data_start = length.size() + header.size();
  for (auto& [name, place] : writer->places_) place.begin += data_start;
  writer->total_bytes_ = offset;
  // Not every file system can; then a full disk shows while writing.
  if (fallocate(fd, 0, 0, static_cast<off_t>(data_start + offset)) != 0 && errno != EOPNOTSUPP) {
    return absl::ErrnoToStatus(errno, absl::StrCat(path, ": no room for ", data_start + offset, " bytes"));
  }
  LANCET_RETURN_IF_ERROR(writer->WriteAt(0, length.data(), length.size()));
  LANCET_RETURN_IF_ERROR(writer->WriteAt(length.size(), header.data(), header.size()));
  return writer;
}

StateDictWriter::~StateDictWriter() {
  if (fd_ >= 0) close(fd_);
}

absl::Status StateDictWriter::WriteAt(uint64_t at, const void* data, size_t size) {
  const char* from = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t done = pwrite(fd_, from, size, static_cast<off_t>(at));
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) return absl::ErrnoToStatus(errno, absl::StrCat(path_, ": cannot write"));
    from += done;
    at += static_cast<uint64_t>(done);
    size -= static_cast<size_t>(done);
  }
  return absl::OkStatus();
}

absl::Status StateDictWriter::Write(absl::string_view name, uint64_t offset,
                                    absl::Span<const std::byte> bytes) {
  const auto place = places_.find(name);
  if (place == places_.end() || offset > place->second.size || bytes.size() > place->second.size - offset) {
    return absl::InvalidArgumentError(absl::StrCat(path_, ": no room for ", bytes.size(), " bytes at ",
                                                   offset, " of tensor ", Quote(name)));
  }
  LANCET_RETURN_IF_ERROR(WriteAt(place->second.begin + offset, bytes.data(), bytes.size()));
  written_bytes_ += bytes.size();
  return absl::OkStatus();
}

absl::Status StateDictWriter::Finish() {
  if (written_bytes_ != total_bytes_) {
    return absl::FailedPreconditionError(
        absl::StrCat(path_, ": ", written_bytes_, " of ", total_bytes_, " bytes were written"));
  }
  if (fsync(fd_) != 0) return absl::ErrnoToStatus(errno, absl::StrCat(path_, ": cannot sync"));
  const int fd = std::exchange(fd_, -1);
  if (close(fd) != 0) return absl::ErrnoToStatus(errno, absl::StrCat(path_, ": cannot close"));
  return absl::OkStatus();
}

}  // namespace lancet
