// A safetensors file as a StateDict. The format, all little-endian:
//
//   u64 n            bytes of the header
//   n bytes          JSON, padded with spaces; "__metadata__" may map strings to strings:
//                    {"name": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [begin, end]}, ...}
//   the rest         tensor data; data_offsets count from its first byte
//
// Everything is checked before a tensor is handed out: n <= 100 MB and within the file, the header starts
// with '{', no duplicate keys, known element types, elements * size == end - begin, and the tensors tile the
// data without holes, overlaps or leftovers.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "common/mapped_file.h"
#include "common/safetensors_header.h"
#include "common/state_dict.h"

namespace lancet {

// The limit of the format's own library.
inline constexpr uint64_t kMaxSafetensorsHeaderBytes = 100'000'000;

class SafetensorsFile final : public StateDict {
 public:
  // Maps and checks. InvalidArgument names the file and, where there is one, the tensor.
  static absl::StatusOr<std::unique_ptr<SafetensorsFile>> Open(const std::string& path);
  static absl::StatusOr<std::unique_ptr<SafetensorsFile>> Create(std::unique_ptr<const ReadOnlyFile> file);

  const std::vector<std::string>& names() const override { return names_; }
  bool Contains(absl::string_view name) const override { return tensors_.contains(name); }
  absl::StatusOr<TensorView> Get(absl::string_view name) const override;
  const std::string& path() const override { return file_->path(); }
  // What "__metadata__" says; empty without it.
  const SafetensorsMetadata& metadata() const { return metadata_; }
  void Release(absl::string_view name) const override;

 private:
  explicit SafetensorsFile(std::unique_ptr<const ReadOnlyFile> file) : file_(std::move(file)) {}

  std::unique_ptr<const ReadOnlyFile> file_;
  std::vector<std::string> names_;
  SafetensorsMetadata metadata_;
  absl::flat_hash_map<std::string, TensorView> tensors_;
  // Tensors whose place in the file is not a multiple of their element size, which the format allows but no
  // processor likes. Files of current writers have none.
  std::vector<std::unique_ptr<std::byte[]>> aligned_copies_;
};

}  // namespace lancet
