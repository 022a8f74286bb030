#include "common/safetensors.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/quote.h"
#include "common/status_macros.h"

namespace lancet {
namespace {

constexpr size_t kLengthBytes = 8;

uint64_t LoadLittleEndian64(const std::byte* p) {
  uint64_t value = 0;
  for (int i = 7; i >= 0; --i) value = value << 8 | static_cast<uint64_t>(p[i]);
  return value;
}

// The header's text, after checking that the file can hold it.
absl::StatusOr<absl::string_view> HeaderText(const ReadOnlyFile& file) {
  const absl::Span<const std::byte> bytes = file.bytes();
  if (bytes.size() < kLengthBytes) {
    return absl::InvalidArgumentError(absl::StrCat(file.path(), ": has ", bytes.size(),
                                                   " bytes; a safetensors file has at least ", kLengthBytes));
  }
  const uint64_t length = LoadLittleEndian64(bytes.data());
  if (length > kMaxSafetensorsHeaderBytes) {
    return absl::InvalidArgumentError(absl::StrCat(file.path(), ": header of ", length,
                                                   " bytes; the limit is ", kMaxSafetensorsHeaderBytes));
  }
  if (length > bytes.size() - kLengthBytes) {
    return absl::InvalidArgumentError(absl::StrCat(file.path(), ": header of ", length,
                                                   " bytes; the file ends after ",
                                                   bytes.size() - kLengthBytes, " (truncated?)"));
  }
  const absl::string_view header(reinterpret_cast<const char*>(bytes.data()) + kLengthBytes, length);
  if (header.empty() || header.front() != '{') {
    return absl::InvalidArgumentError(
        absl::StrCat(file.path(), ": header does not start with '{'; not a safetensors file"));
  }
  return header;
}

}  // namespace

absl::StatusOr<std::unique_ptr<SafetensorsFile>> SafetensorsFile::Open(const std::string& path) {
  LANCET_ASSIGN_OR_RETURN(std::unique_ptr<MappedFile> file, MappedFile::Open(path));
  return Create(std::move(file));
}

absl::StatusOr<std::unique_ptr<SafetensorsFile>> SafetensorsFile::Create(
    std::unique_ptr<const ReadOnlyFile> file) {
  LANCET_ASSIGN_OR_RETURN(const absl::string_view header, HeaderText(*file));
  const size_t data_start = kLengthBytes + header.size();
  SafetensorsMetadata metadata;
  LANCET_ASSIGN_OR_RETURN(
      const std::vector<SafetensorsEntry> entries,
      ParseSafetensorsHeader(header, file->bytes().size() - data_start, file->path(), &metadata));
  const std::byte* const data = file->bytes().data() + data_start;

  auto dict = std::unique_ptr<SafetensorsFile>(new SafetensorsFile(std::move(file)));
  dict->metadata_ = std::move(metadata);
  dict->names_.reserve(entries.size());
  for (const SafetensorsEntry& entry : entries) {
    TensorView view{entry.dtype, entry.shape, data + entry.begin};
    const size_t size = entry.end - entry.begin;
    if (reinterpret_cast<uintptr_t>(view.data) % DTypeSize(entry.dtype) != 0) {
      auto copy = std::make_unique<std::byte[]>(size);
      std::memcpy(copy.get(), view.data, size);
      view.data = copy.get();
      dict->aligned_copies_.push_back(std::move(copy));
    }
    dict->names_.push_back(entry.name);
    dict->tensors_.emplace(entry.name, view);
  }
  std::sort(dict->names_.begin(), dict->names_.end());
  return dict;
}

absl::StatusOr<TensorView> SafetensorsFile::Get(absl::string_view name) const {
  const auto it = tensors_.find(name);
  if (it == tensors_.end()) {
    return absl::NotFoundError(absl::StrCat(path(), ": has no tensor ", Quote(name)));
  }
  return it->second;
}

void SafetensorsFile::Release(absl::string_view name) const {
  const auto it = tensors_.find(name);
  if (it != tensors_.end()) DropPagesOf(*file_, it->second.data, static_cast<size_t>(it->second.num_bytes()));
}

}  // namespace lancet
