// A state dict that is spread over several safetensors files, as large checkpoints are published: beside them
// lies an index, <name>.safetensors.index.json,
//   {"metadata": {...}, "weight_map": {"tensor name": "file name", ...}}
// whose files lie in its folder.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "common/state_dict.h"

namespace lancet {

class ShardedStateDict final : public StateDict {
 public:
  // Maps and checks every file. InvalidArgument for a file name with a folder in it, more than 1024 files, an
  // index of more than 64 MiB, a tensor that its file lacks and a file's tensor that the index gives to
  // another file or not at all.
  static absl::StatusOr<std::unique_ptr<ShardedStateDict>> Open(const std::string& index_path);

  const std::vector<std::string>& names() const override { return names_; }
  bool Contains(absl::string_view name) const override { return file_of_.contains(name); }
  absl::StatusOr<TensorView> Get(absl::string_view name) const override;
  // Of the index.
  const std::string& path() const override { return path_; }
  void Release(absl::string_view name) const override;

 private:
  explicit ShardedStateDict(std::string path) : path_(std::move(path)) {}

  const std::string path_;
  std::vector<std::unique_ptr<StateDict>> files_;
  std::vector<std::string> names_;
  absl::flat_hash_map<std::string, const StateDict*> file_of_;
};

// Opens an unquantised checkpoint: a safetensors file, an index of several (a name that ends in ".json"), or
// a PyTorch archive. NotFound or InvalidArgument names the file.
absl::StatusOr<std::unique_ptr<StateDict>> OpenSourceStateDict(const std::string& path);

}  // namespace lancet
