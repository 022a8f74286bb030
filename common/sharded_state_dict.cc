#include "common/sharded_state_dict.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/json.h"
#include "common/mapped_file.h"
#include "common/quote.h"
#include "common/safetensors.h"
#include "common/status_macros.h"

namespace lancet {
namespace {

constexpr size_t kMaxIndexBytes = size_t{64} << 20;
constexpr size_t kMaxFiles = 1024;

bool IsPlainName(absl::string_view name) {
  return !name.empty() && name != "." && name != ".." && !absl::StrContains(name, '/') &&
         !absl::StrContains(name, '\0');
}

}  // namespace

absl::StatusOr<std::unique_ptr<ShardedStateDict>> ShardedStateDict::Open(const std::string& index_path) {
  LANCET_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(index_path, kMaxIndexBytes));
  LANCET_ASSIGN_OR_RETURN(const nlohmann::json index, ParseJson(text, index_path));
  const auto error = [&](absl::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat(index_path, ": ", what));
  };
  const auto map = index.is_object() ? index.find("weight_map") : index.end();
  if (!index.is_object() || map == index.end() || !map->is_object()) {
    return error("weight_map is not an object; not an index of safetensors files");
  }
  auto dict = std::unique_ptr<ShardedStateDict>(new ShardedStateDict(index_path));
  absl::flat_hash_map<std::string, const StateDict*> files;
  size_t tensors = 0;
  for (const auto& [name, value] : map->items()) {
    const std::string file = value.is_string() ? value.get<std::string>() : std::string();
    if (!IsPlainName(file)) {
      return error(absl::StrCat("weight_map gives tensor ", Quote(name), " the file ", Quote(value.dump()),
                                "; expected a file's name without a folder"));
    }
    const StateDict*& opened = files[file];
    if (opened == nullptr) {
      if (files.size() > kMaxFiles) return error(absl::StrCat("names more than ", kMaxFiles, " files"));
      const std::filesystem::path path = std::filesystem::path(index_path).parent_path() / file;
      LANCET_ASSIGN_OR_RETURN(std::unique_ptr<SafetensorsFile> shard, SafetensorsFile::Open(path.string()));
      opened = shard.get();
      tensors += shard->names().size();
      dict->files_.push_back(std::move(shard));
    }
    if (!opened->Contains(name)) {
      return error(absl::StrCat("gives tensor ", Quote(name), " to ", Quote(file), ", which lacks it"));
    }
    dict->file_of_.emplace(name, opened);
    dict->names_.push_back(name);
  }
  std::sort(dict->names_.begin(), dict->names_.end());
  if (tensors != dict->names_.size()) {
    for (const auto& [file, opened] : files) {
      for (const std::string& name : opened->names()) {
        const auto found = dict->file_of_.find(name);
        if (found != dict->file_of_.end() && found->second == opened) continue;
        return error(
            absl::StrCat("does not give tensor ", Quote(name), " to ", Quote(file), ", which has it"));
      }
    }
  }
  return dict;
}

absl::StatusOr<TensorView> ShardedStateDict::Get(absl::string_view name) const {
  const auto found = file_of_.find(name);
  if (found == file_of_.end()) {
    return absl::NotFoundError(absl::StrCat(path_, ": has no tensor ", Quote(name)));
  }
  return found->second->Get(name);
}

void ShardedStateDict::Release(absl::string_view name) const {
  const auto found = file_of_.find(name);
  if (found != file_of_.end()) found->second->Release(name);
}

absl::StatusOr<std::unique_ptr<StateDict>> OpenSourceStateDict(const std::string& path) {
  if (absl::EndsWith(path, ".json")) return ShardedStateDict::Open(path);
  return OpenStateDict(path);
}

}  // namespace lancet
