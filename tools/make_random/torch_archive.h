// The parts of a torch.save archive that are not tensor data: the pickle, zip headers and the directory.
//
// A zip archive of stored members: <name>/data.pkl, an OrderedDict of torch._utils._rebuild_tensor_v2 calls;
// <name>/data/<i>, the storage of tensor i; <name>/version. Data begins at multiples of 64 bytes: local
// headers are padded by an extra field, as torch does.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "tools/make_random/random_tensors.h"

namespace lancet {

class TorchArchive {
 public:
  // Bytes of the file and where they go.
  struct Text {
    int64_t offset = 0;
    std::string bytes;
  };

  // `path` gives the members their folder, its name without ".pth". InvalidArgument for other element types
  // than F32 and BF16, and for archives that need zip64.
  static absl::StatusOr<TorchArchive> Plan(const std::string& path, absl::Span<const RandomTensor> tensors);

  // Where the data of tensor `index` begins in the file.
  int64_t data_offset(size_t index) const { return members_[index + 1].data_offset; }
  void SetCrc32(size_t index, uint32_t sum) { members_[index + 1].crc32 = sum; }
  // Everything else, once every sum is known.
  std::vector<Text> Texts() const;

 private:
  struct Member {
    std::string name;
    int64_t size = 0;
    std::string content;  // empty for storages
    uint32_t crc32 = 0;
    int64_t header_offset = 0;
    int64_t data_offset = 0;
  };
  std::string LocalHeader(const Member& member) const;
  std::string Directory() const;

  std::vector<Member> members_;  // the pickle, a storage for each tensor, the version
  int64_t directory_offset_ = 0;
};

}  // namespace lancet
